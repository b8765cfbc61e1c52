"""Bulk jobs: a folder or a list of files in, one Parquet file of embeddings out.

from mstkd_client.bulk import embed_files, show_progress

with show_progress() as on_progress:
    embed_files("faces/", "faces.parquet", connect={"url": "localhost:8001"},
                on_progress=on_progress)

Needs the extra `bulk` (pyarrow, rich); the engine `ray` needs the extra `ray`.
"""

from mstkd_client.bulk._errors import (
    BulkError,
    JobLocked,
    JobMismatch,
    OutputError,
    SourceError,
)
from mstkd_client.bulk.console import show_progress
from mstkd_client.bulk.embed import embed_files
from mstkd_client.bulk.progress import BulkResult, Progress

__all__ = [
    "BulkError",
    "BulkResult",
    "JobLocked",
    "JobMismatch",
    "OutputError",
    "Progress",
    "SourceError",
    "embed_files",
    "show_progress",
]
