"""Build a TensorRT plan from a served graph with NVIDIA's `trtexec`.

A plan runs on the kind of GPU and the version of TensorRT that it was built with, so this runs
where the plan will be served. Options: https://docs.nvidia.com/deeplearning/tensorrt, `trtexec`.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from mstkd_serve.errors import RepositoryError
from mstkd_serve.files import atomic_path
from mstkd_serve.graph import INPUT_NAME
from mstkd_serve.repository.backend import profile
from mstkd_serve.repository.options import GpuPrecision, ServingOptions

PROGRAM: Final = "trtexec"
_SECONDS: Final = 3600
_SHAPES: Final = {INPUT_NAME: (112, 112, 3)}


def plan_command(onnx_file: Path, plan: Path, options: ServingOptions) -> list[str]:
    """Return the command that builds a plan for batches of 1 to `max_batch_size`."""
    command = [
        PROGRAM,
        f"--onnx={onnx_file}",
        f"--saveEngine={plan}",
        f"--minShapes={profile(_SHAPES, 1)}",
        f"--optShapes={profile(_SHAPES, options.max_batch_size)}",
        f"--maxShapes={profile(_SHAPES, options.max_batch_size)}",
        "--skipInference",
    ]
    return [*command, "--fp16"] if options.gpu_precision is GpuPrecision.FP16 else command


def build_plan(onnx_file: Path, plan: Path, options: ServingOptions) -> None:
    """Build a plan; it appears whole or not at all.

    Raises:
        RepositoryError: `trtexec` is not here, or it fails.
    """
    if shutil.which(PROGRAM) is None:
        raise RepositoryError(
            f"the tensorrt target needs {PROGRAM} in PATH, and the GPU that will serve. Build the "
            "repository inside NVIDIA's tensorrt container of the Triton release that you serve "
            "with, on that machine; or use --target onnxruntime --device gpu --tensorrt, which "
            "builds its engines when the server starts."
        )
    with atomic_path(plan) as temporary:
        command = plan_command(onnx_file, temporary, options)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RepositoryError(f"{PROGRAM} was not done after {_SECONDS} s.") from error
        if done.returncode or not temporary.stat().st_size:
            lines = (done.stdout + done.stderr).strip().splitlines()
            reasons = [line for line in lines if "[E]" in line] or lines
            last = reasons[-1] if reasons else "it said nothing"
            raise RepositoryError(f"{PROGRAM} failed with status {done.returncode}: {last}")
