"""How far a job is, and what came of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

INTERVAL: Final = 0.2
"""Seconds between two reports at least."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        files_done: Files read and embedded, those of earlier runs included.
        files_total: Files of the job.
        rows: Faces in finished parts.
        unreadable: Files in finished parts that gave no face.
        files_per_second: Of this run.
        resumed_from: Files that earlier runs had finished; 0 for a new job.
    """

    files_done: int
    files_total: int
    rows: int
    unreadable: int
    files_per_second: float
    resumed_from: int


OnProgress: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a finished job wrote.

    Attributes:
        rows: Faces in `out`.
        files: Files that were listed.
        unreadable: Those that gave no face.
        out: The Parquet file.
        unreadable_report: The CSV file that names the unreadable files and the reasons, or None
            where there are none.
    """

    rows: int
    files: int
    unreadable: int
    out: Path
    unreadable_report: Path | None


class Meter:
    """Counts what is done and reports it, not too often.

    Args:
        on_progress: Who wants to know, if anyone.
        files_total: Files of the job.
        resumed_from: Files of the parts that earlier runs finished.
        rows: Faces of these parts.
        unreadable: Unreadable files of these parts.
    """

    def __init__(
        self,
        on_progress: OnProgress | None,
        files_total: int,
        *,
        resumed_from: int,
        rows: int,
        unreadable: int,
    ) -> None:
        self._on_progress = on_progress
        self._total = files_total
        self._resumed_from = resumed_from
        self._finished = resumed_from
        self._open = 0
        self._rows = rows
        self._unreadable = unreadable
        self._start = time.monotonic()
        self._reported = self._start
        self._report()

    def file_done(self) -> None:
        """Count a file of the part under way."""
        self._open += 1
        if time.monotonic() - self._reported >= INTERVAL:
            self._report()

    def part_done(self, files: int, rows: int, unreadable: int) -> None:
        """Count a part that is on disk, in place of its files so far."""
        self._open = 0
        self._finished += files
        self._rows += rows
        self._unreadable += unreadable
        last = self._finished == self._total
        if last or time.monotonic() - self._reported >= INTERVAL:
            self._report()

    def _report(self) -> None:
        self._reported = time.monotonic()
        if self._on_progress is None:
            return
        done = self._finished + self._open
        seconds = self._reported - self._start
        rate = (done - self._resumed_from) / seconds if seconds > 0 else 0.0
        self._on_progress(
            Progress(done, self._total, self._rows, self._unreadable, rate, self._resumed_from)
        )
