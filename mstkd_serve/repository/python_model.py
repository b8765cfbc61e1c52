"""Triton Python backend model: one graph in OpenVINO or ONNX Runtime.

`mstkd-serve repo build --target python` copies this file into a model repository. There it runs
inside tritonserver's own interpreter, so it imports numpy, one runtime and Triton's module, and
nothing of mstkd_serve. Triton hands `execute` all the requests of one dynamic batch: they are
joined, run once, and the answers are views into the output arrays.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Run = Callable[[list[np.ndarray]], list[np.ndarray]]
"""From the inputs to the outputs, both in the order of the model's config."""


def open_openvino(path: str, threads: int, inputs: list[str], outputs: list[str]) -> Run:
    """Compile the graph for the CPU in full fp32 precision."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
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
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        runtime, self._run = open_graph(str(path), threads, self._inputs, self._outputs, gpu)
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
