"""Triton Python backend model: one graph in OpenVINO or ONNX Runtime.

`mstkd-serve repo build --target python` copies this file into a model repository. There it runs
inside tritonserver's own interpreter, so it imports numpy, one runtime and Triton's module, and
nothing of mstkd_serve. Triton hands `execute` all the requests of one dynamic batch: they are
joined, run once, and the answers are views into the output arrays.
"""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

LEAST_COSINE = 0.9995
"""Of a golden face's embedding in bfloat16 to its embedding in float32."""
Golden = tuple[np.ndarray, np.ndarray]
"""A face, uint8 (1, 112, 112, 3), and its embedding, float32 (dim,)."""
Run = Callable[[list[np.ndarray]], list[np.ndarray]]
"""From the inputs to the outputs, both in the order of the model's config."""


def open_openvino(
    path: str, threads: int, inputs: list[str], outputs: list[str], precision: str = "fp32"
) -> Run:
    """Compile the graph for the CPU, `precision` fp32 or bf16."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()

    def run(batches: list[np.ndarray]) -> list[np.ndarray]:
        answer = request.infer(dict(zip(inputs, batches, strict=True)), share_inputs=True)
        # The request reuses its output memory: copy before the next batch overwrites it.
        return [np.array(answer[name]) for name in outputs]

    return run


def open_onnxruntime(
    path: str, threads: int, inputs: list[str], outputs: list[str], gpu: int | None = None
) -> Run:
    """Open the graph in ONNX Runtime, on the CPU or on a GPU and nowhere else."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers: list[Any] = ["CPUExecutionProvider"]
    if gpu is not None:
        providers = [("CUDAExecutionProvider", {"device_id": gpu})]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    if gpu is not None and session.get_providers()[0] != "CUDAExecutionProvider":
        raise pb_utils.TritonModelException(
            "this repository was built for a GPU, and ONNX Runtime found none that it can use: "
            "install onnxruntime-gpu (and not onnxruntime) beside tritonserver, or build the "
            "repository with --device cpu"
        )

    def run(batches: list[np.ndarray]) -> list[np.ndarray]:
        answers: list[np.ndarray] = session.run(outputs, dict(zip(inputs, batches, strict=True)))
        return answers

    return run


def computes_in_bf16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Tell whether this machine's cores have instructions for bfloat16."""
    try:
        flags = Path(cpuinfo).read_text(encoding="utf-8").split()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def open_in_bf16(path: str, threads: int, config: dict[str, Any], golden: Golden | None) -> Run:
    """Open an embedding graph in bfloat16 and prove it by the golden face.

    Raises:
        pb_utils.TritonModelException: The machine or the runtime cannot do it, or the golden
            face's embedding is no longer what it was.
    """
    if not computes_in_bf16():
        raise pb_utils.TritonModelException("bf16: this CPU has neither AMX nor AVX512-BF16")
    inputs = [tensor["name"] for tensor in config["input"]]
    outputs = [tensor["name"] for tensor in config["output"]]
    try:
        run = open_openvino(path, threads, inputs, outputs, "bf16")
    except ModuleNotFoundError as error:
        raise pb_utils.TritonModelException(
            "bf16: openvino is not installed beside tritonserver: "
            "run 'mstkd-serve triton install --runtime openvino'"
        ) from error
    if golden is not None:
        face, expected = golden
        found = run([face])[outputs.index("embedding")][0]
        cosine = float(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
        if not cosine >= LEAST_COSINE:
            raise pb_utils.TritonModelException(
                f"bf16: the golden face's embedding has cosine {cosine:.6f} to its fp32 one, "
                f"below {LEAST_COSINE}"
            )
    return run


def read_golden(folder: Path, version: str, parameters: dict[str, Any]) -> Golden | None:
    """Return the warm-up face, which is the first golden one, and its known embedding."""
    entry = parameters.get(f"mstkd.golden@{version}") or parameters.get("mstkd.golden")
    face = folder / "warmup" / "golden_face.raw"
    if entry is None or not face.is_file():
        return None
    raw = base64.b64decode(json.loads(entry["string_value"])["embeddings"])
    pixels = np.frombuffer(face.read_bytes(), np.uint8).reshape(1, 112, 112, 3)
    return pixels, np.frombuffer(raw, "<f4").reshape(4, -1)[0]


def open_graph(
    path: str, threads: int, inputs: list[str], outputs: list[str], gpu: int | None
) -> tuple[str, Run]:
    """Open the graph in the first runtime that is installed; GPUs need ONNX Runtime."""
    openers: list[tuple[str, Callable[[], Run]]] = [
        ("onnxruntime", lambda: open_onnxruntime(path, threads, inputs, outputs, gpu))
    ]
    if gpu is None:
        openers.insert(0, ("openvino", lambda: open_openvino(path, threads, inputs, outputs)))
    for name, opener in openers:
        try:
            return name, opener()
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise pb_utils.TritonModelException(
        "neither openvino nor onnxruntime is installed beside tritonserver: "
        "run 'mstkd-serve triton install'"
    )


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open `model.onnx` of this version with this instance's share of the cores."""
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        instances = sum(group["count"] for group in config["instance_group"])
        threads = int(config["parameters"]["mstkd.intra_op_threads"]["string_value"])
        if threads == 0:
            threads = max(1, len(os.sched_getaffinity(0)) // instances)
        on_gpu = config["parameters"]["mstkd.device"]["string_value"] == "gpu"
        gpu = int(args["model_instance_device_id"]) if on_gpu else None
        folder, version = Path(args["model_repository"]), args["model_version"]
        path = str(folder / version / "model.onnx")
        wanted = config["parameters"]["mstkd.precision"]["string_value"]
        runtime = "openvino in bf16"
        try:
            if wanted == "fp32" or gpu is not None:
                raise pb_utils.TritonModelException("fp32 is asked for")
            golden = read_golden(folder, version, config["parameters"])
            self._run = open_in_bf16(path, threads, config, golden)
        except pb_utils.TritonModelException as reason:
            if wanted == "bf16":
                raise
            name, self._run = open_graph(path, threads, self._inputs, self._outputs, gpu)
            runtime = f"{name} in fp32 ({reason})"
        pb_utils.Logger.log_info(
            f"{args['model_instance_name']}: {runtime}, {threads} intra-op threads"
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer one dynamic batch."""
        given = [
            [pb_utils.get_input_tensor_by_name(r, name).as_numpy() for name in self._inputs]
            for r in requests
        ]
        joined = (
            given[0] if len(given) == 1 else [np.concatenate(p) for p in zip(*given, strict=True)]
        )
        try:
            answers = self._run(joined)
        except Exception as error:  # a failed batch must not take the instance down
            failure = pb_utils.TritonError(f"inference failed: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        responses, start = [], 0
        for batches in given:
            stop = start + len(batches[0])
            tensors = [
                pb_utils.Tensor(name, answer[start:stop])
                for name, answer in zip(self._outputs, answers, strict=True)
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
            start = stop
        return responses
