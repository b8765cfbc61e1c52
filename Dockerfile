# Serves a model repository built with --target onnxruntime or openvino on NVIDIA's Triton.
# 25.07 or later, for its security fixes. No training code and no weights are inside: mount the
# repository, read-only, at /models.
#
#   docker build --tag mstkd-serve .
#   docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:8001:8001 \
#     --volume "$PWD/model_repository:/models:ro" mstkd-serve
FROM nvcr.io/nvidia/tritonserver:25.07-py3

# The image's own unprivileged user.
USER triton-server
EXPOSE 8001 8000 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["curl", "--fail", "--silent", "http://127.0.0.1:8000/v2/health/ready"]
ENTRYPOINT ["tritonserver"]
CMD ["--model-repository=/models", "--strict-readiness=true", "--disable-auto-complete-config", "--model-control-mode=none"]
