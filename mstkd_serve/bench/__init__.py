"""Measure what serves faces, side by side and in turn: engines, the served path, the client.

Shared machines make absolute times worth little, so every claim is a ratio between ways that were
measured in turn in one run, as the median over rounds.
"""

from mstkd_serve.bench.load import LoadPoint, closed_loop, open_loop
from mstkd_serve.bench.report import write_report
from mstkd_serve.bench.results import BenchReport, Target
from mstkd_serve.bench.session import Effort, Subject
from mstkd_serve.bench.suite import bench, bench_url

__all__ = [
    "BenchReport",
    "Effort",
    "LoadPoint",
    "Subject",
    "Target",
    "bench",
    "bench_url",
    "closed_loop",
    "open_loop",
    "write_report",
]
