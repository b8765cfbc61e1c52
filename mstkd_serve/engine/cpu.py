"""What this machine's cores can compute in."""

from pathlib import Path
from typing import Literal


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> Literal["amx", "avx512", ""]:
    """Return which instructions for bfloat16 the cores have: tiles, vectors, or none."""
    try:
        flags = cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        return ""
    if "amx_bf16" in flags:
        return "amx"
    return "avx512" if "avx512_bf16" in flags else ""
