# NVIDIA's Triton over a model repository built with --target onnxruntime or openvino. No training
# code and no weights are inside: mount the repository, read-only, at /models, or make an image of
# your own with it (docs/operations.md).
#
#   docker build --target cpu --tag mstkd-serve:cpu .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     --publish 127.0.0.1:8001:8001 --volume "$PWD/model_repository:/models:ro" mstkd-serve:cpu
#
# 25.07 or later, for its security fixes.
ARG TRITON_VERSION=25.07

FROM nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3 AS serve
# Nothing is written outside /tmp and /dev/shm: the root file system may be read-only.
COPY --chown=root:root --chmod=0555 deploy/entrypoint.sh /opt/mstkd/entrypoint.sh
# The image's own unprivileged user, triton-server, as a number, which Kubernetes can check.
USER 1000:1000
ENV PATH=/opt/tritonserver/bin:${PATH} \
    MSTKD_MODEL_REPOSITORY=/models \
    MSTKD_GRPC_PORT=8001 \
    MSTKD_HTTP_PORT=8000 \
    MSTKD_METRICS_PORT=8002
WORKDIR /tmp
EXPOSE 8001 8000 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["/opt/mstkd/entrypoint.sh", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/mstkd/entrypoint.sh"]

# Uses the GPUs that the container is given (docker run --gpus all).
FROM serve AS gpu
ENV MSTKD_GPU_METRICS=true

# Sees no GPU, whatever the machine has. The last stage: what `docker build .` makes.
FROM serve AS cpu
ENV NVIDIA_VISIBLE_DEVICES=void \
    CUDA_VISIBLE_DEVICES="" \
    MSTKD_GPU_METRICS=false
