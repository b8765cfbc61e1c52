"""The end of a job: join the parts, move the result into place, remove the work folder.

Each step may be cut short and done again: `done.json` says that the joined files are whole.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from mstkd_client.bulk._errors import OutputError
from mstkd_client.bulk._storage import atomic_file, sync_folder, writing
from mstkd_client.bulk.job import DONE, Job, clear
from mstkd_client.bulk.parts import merge
from mstkd_client.bulk.progress import BulkResult

SUFFIX: Final = ".parquet"
_ROWS: Final = "rows.parquet"
_REPORT: Final = "unreadable.csv"


@dataclass(frozen=True, slots=True)
class Done:
    """A job whose parts are joined.

    Attributes:
        source: The folder or list.
        digest: SHA-256 of the list, or "".
        detector: What identifies the detector, or "".
        rows: Faces.
        files: Files that were listed.
        unreadable: Those that gave no face.
    """

    source: str
    digest: str
    detector: str
    rows: int
    files: int
    unreadable: int

    @classmethod
    def load(cls, folder: Path) -> "Done | None":
        """Read the note in a work folder; None where the job is not done."""
        try:
            return cls(**json.loads((folder / DONE).read_bytes()))
        except FileNotFoundError:
            return None


def report_path(out: Path) -> Path:
    """Name the report of unreadable files: `faces.unreadable.csv` for `faces.parquet`."""
    return out.with_suffix(".unreadable.csv")


def check_output(out: Path, *, force: bool) -> None:
    """Refuse an output that cannot or must not be written.

    Raises:
        OutputError: It is a folder, not named .parquet, in no folder, or exists without `force`.
    """
    if out.suffix != SUFFIX:
        raise OutputError(f"{out} must end in {SUFFIX}. Give such a name.")
    if out.is_dir():
        raise OutputError(f"{out} is a folder. Name a file.")
    if not out.parent.is_dir():
        raise OutputError(f"{out}: there is no folder {out.parent}. Create it first.")
    if out.exists() and not force:
        raise OutputError(f"{out} exists. Give another name, or --force to overwrite it.")


def join_parts(job: Job) -> Done:
    """Join the parts of a job in its work folder.

    Raises:
        BulkError: A part is not there.
        OutputError: The file system refused.
    """
    rows, unreadable = merge(job, job.folder / _ROWS, job.folder / _REPORT)
    done = Done(job.source, job.digest, job.detector, rows, job.files, unreadable)
    with atomic_file(job.folder / DONE) as file:
        file.write(json.dumps(asdict(done)).encode("ascii"))
    return done


def publish(folder: Path, done: Done, out: Path, *, force: bool) -> BulkResult:
    """Move the joined files into place and remove what the job needed.

    Raises:
        OutputError: The output has come into being meanwhile, or the file system refused.
    """
    report = report_path(out)
    rows_file, report_file = folder / _ROWS, folder / _REPORT
    if rows_file.exists():  # else an earlier run was cut short after this step
        check_output(out, force=force)
        with writing(out):
            if not done.unreadable:
                report.unlink(missing_ok=True)
            elif report_file.exists():
                report_file.replace(report)
            rows_file.replace(out)
            sync_folder(out.parent)
    with writing(folder):
        clear(folder)
    return BulkResult(
        done.rows, done.files, done.unreadable, out, report if done.unreadable else None
    )
