"""Triton Python backend model: one served graph in OpenVINO or ONNX Runtime.

`mstkd-serve repo build --target python` copies this file into a model repository. There it runs
inside tritonserver's own interpreter, so it imports numpy, one runtime and Triton's module, and
nothing of mstkd_serve. Triton hands `execute` all the requests of one dynamic batch: they are
joined, run once, and the answers are views into the one output array.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Run = Callable[[np.ndarray], np.ndarray]


def open_openvino(path: str, threads: int) -> Run:
    """Compile the graph for the CPU in full fp32 precision."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()

    def run(faces: np.ndarray) -> np.ndarray:
        # The request reuses its output memory: copy before the next batch overwrites it.
        return np.array(request.infer([faces], share_inputs=True)[compiled.output(0)])

    return run


def open_onnxruntime(path: str, threads: int) -> Run:
    """Open the graph in ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(faces: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["embedding"], {"faces": faces})[0])

    return run


def open_graph(path: str, threads: int) -> tuple[str, Run]:
    """Open the graph in the first runtime that is installed."""
    for name, opener in (("openvino", open_openvino), ("onnxruntime", open_onnxruntime)):
        try:
            return name, opener(path, threads)
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
        instances = sum(group["count"] for group in config["instance_group"])
        threads = int(config["parameters"]["mstkd.intra_op_threads"]["string_value"])
        if threads == 0:
            threads = max(1, len(os.sched_getaffinity(0)) // instances)
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        runtime, self._run = open_graph(str(path), threads)
        pb_utils.Logger.log_info(
            f"{args['model_instance_name']}: {runtime}, {threads} intra-op threads"
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer one dynamic batch."""
        batches = [pb_utils.get_input_tensor_by_name(r, "faces").as_numpy() for r in requests]
        faces = batches[0] if len(batches) == 1 else np.concatenate(batches)
        try:
            embeddings = self._run(faces)
        except Exception as error:  # a failed batch must not take the instance down
            failure = pb_utils.TritonError(f"inference failed: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        responses, start = [], 0
        for batch in batches:
            stop = start + len(batch)
            tensor = pb_utils.Tensor("embedding", embeddings[start:stop])
            responses.append(pb_utils.InferenceResponse([tensor]))
            start = stop
        return responses
