"""What a measurement ran on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from mstkd_serve.engine import bf16_instructions

_PACKAGES: Final = (
    "mstkd-serve",
    "mstkd-client",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "insightface",
    "tritonclient",
    "numpy",
)


class Machine(BaseModel):
    """The machine, and the versions of what was measured.

    Attributes:
        processor: Name of the processor, as Linux gives it.
        cores: Cores that this process may use; a server started by it shares them.
        bf16: Instructions for bfloat16: `amx`, `avx512` or empty.
        memory_gib: Main memory.
        versions: Version of each package that is installed.
    """

    model_config = ConfigDict(frozen=True)

    processor: str
    cores: int
    bf16: str
    memory_gib: float
    versions: dict[str, str]

    def __str__(self) -> str:
        packages = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.processor}, {self.cores} cores shared by client and server, "
            f"bf16 instructions: {self.bf16 or 'none'}, {self.memory_gib:.0f} GiB; {packages}."
        )


def describe_machine() -> Machine:
    """Describe this machine and what is installed on it."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        bf16=bf16_instructions(),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        versions=versions,
    )


def resident_mib(pid: int) -> float:
    """Return the memory of a process and its descendants, MiB: proportional set size (PSS)."""
    total = 0
    for process in (pid, *_descendants(pid)):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
        except OSError:
            continue  # it ended meanwhile
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return total / 1024


def _descendants(pid: int) -> list[int]:
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text(encoding="utf-8").split():
            found += [int(child), *_descendants(int(child))]
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
