"""The work folder of a job: its lock, its description, its listing and the parts done.

.faces.parquet.mstkd/
  lock            held while a process works on faces.parquet
  files.jsonl     the listing, written once
  job.json        source, model, detector; written last, so it says that the listing is whole
  <id>/           part-000000.parquet ..., each written whole or not at all
  done.json       all parts are merged; only moving the result into place is left
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from mstkd_client.bulk._errors import JobLocked, JobMismatch
from mstkd_client.bulk._storage import atomic_file, writing
from mstkd_client.bulk.sources import Source, read_listing, write_listing

FORMAT: Final = 1
_LOCK: Final = "lock"
_JOB: Final = "job.json"
_LISTING: Final = "files.jsonl"
DONE: Final = "done.json"
"""Name of the note that the parts are joined."""


@dataclass(frozen=True, slots=True)
class Model:
    """What made a job's embeddings. All of them must come from one and the same.

    Attributes:
        contract_id: Id of the face contract.
        model_name: Name of the model.
        model_version: Version that answers.
        embedding_dim: Length of one embedding.
        contract: The face contract itself.
    """

    contract_id: str
    model_name: str
    model_version: str
    embedding_dim: int
    contract: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A job on disk. Every process that works on it reads the same description.

    Attributes:
        folder: The work folder.
        id: Unique name of this job; its parts lie in the subfolder of that name, so a worker
            that outlived an abandoned job cannot write among the parts of its successor.
        source: The folder or list.
        digest: SHA-256 of the list, or "".
        base: The folder that paths are relative to.
        detector: What identifies the detector; "" where the faces are aligned already.
        model: What embeds.
        part_size: Files of a part; the last one may have fewer.
        files: Files in all.
        offsets: Where each part begins in the listing.
    """

    folder: Path
    id: str
    source: str
    digest: str
    base: str
    detector: str
    model: Model
    part_size: int
    files: int
    offsets: list[int]

    @classmethod
    def create(
        cls, folder: Path, source: Source, model: Model, *, detector: str, part_size: int
    ) -> Self:
        """Write the listing and the description of a new job.

        Raises:
            SourceError: The source cannot be read, or holds no image.
            OutputError: The file system refused to write.
        """
        clear(folder)
        name = uuid.uuid4().hex
        with atomic_file(folder / _LISTING) as file:
            files, offsets = write_listing(source, file, part_size, folder)
        with writing(folder):
            (folder / name).mkdir(mode=0o700)
        job = cls(
            folder=folder,
            id=name,
            source=os.fsdecode(source.path),
            digest=source.digest,
            base=os.fsdecode(source.base),
            detector=detector,
            model=model,
            part_size=part_size,
            files=files,
            offsets=offsets,
        )
        values = {"format": FORMAT, **asdict(job)}
        del values["folder"]
        with atomic_file(folder / _JOB) as file:
            file.write(json.dumps(values).encode("ascii"))
        return job

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read the description of the job in a work folder; None where none was begun.

        Raises:
            JobMismatch: It is damaged, or was written by an incompatible release.
        """
        try:
            values = json.loads((folder / _JOB).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise JobMismatch(
                f"{folder / _JOB} is damaged. Give --restart to begin anew."
            ) from error
        if values.pop("format", None) != FORMAT:
            raise JobMismatch(
                f"{folder} was written by another release of mstkd-client. Finish the job with "
                "that one, or give --restart to begin anew."
            )
        model = Model(**values.pop("model"))
        return cls(folder=folder, model=model, **values)

    def part_path(self, part: int) -> Path:
        """Where a part's rows lie once it is done."""
        return self.folder / self.id / f"part-{part:06}.parquet"

    def paths(self, part: int) -> list[str]:
        """Read the paths of a part from the listing."""
        return read_listing(self.folder / _LISTING, self.offsets[part], self.part_size)

    def require(self, source: Source, model: Model, detector: str) -> None:
        """Refuse to go on with anything but what the job was begun with.

        Raises:
            JobMismatch: Naming what differs.
        """
        require_same(
            self.folder,
            {
                "source": (self.source, os.fsdecode(source.path)),
                "content of the list": (self.digest, source.digest),
                "detector": (self.detector, detector),
                "model name": (self.model.model_name, model.model_name),
                "model version": (self.model.model_version, model.model_version),
                "contract id": (self.model.contract_id, model.contract_id),
            },
        )


def require_same(folder: Path, pairs: Mapping[str, tuple[str, str]]) -> None:
    """Compare what a job was begun with to what is given now.

    Raises:
        JobMismatch: Naming what differs.
    """
    differing = [
        f"{name} (begun with {old or 'none'}, now {new or 'none'})"
        for name, (old, new) in pairs.items()
        if old != new
    ]
    if differing:
        raise JobMismatch(
            f"the job under way in {folder} differs in {', '.join(differing)}. Give what it was "
            "begun with, or --restart to drop the work done and begin anew."
        )


@contextmanager
def locked_folder(out: Path) -> Iterator[Path]:
    """Hold the work folder beside `out`; it is removed afterwards where it holds no job.

    Yields:
        The work folder, mode 0700.

    Raises:
        JobLocked: Another process holds it.
        OutputError: It cannot be made.
    """
    folder = out.with_name(f".{out.name}.mstkd")
    with writing(folder):
        handle = _lock(folder, out)
    try:
        yield folder
    finally:
        if not (folder / _JOB).exists() and not (folder / DONE).exists():
            with suppress(OSError):
                clear(folder)
                (folder / _LOCK).unlink(missing_ok=True)
                folder.rmdir()
        os.close(handle)


def abandon(folder: Path) -> None:
    """Drop the job in a work folder, done or not."""
    with writing(folder):
        (folder / DONE).unlink(missing_ok=True)
        clear(folder)


def clear(folder: Path) -> None:
    """Remove all but the lock: the description first, and the note that the job is done last."""
    (folder / _JOB).unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in (_LOCK, DONE):
            entry.unlink(missing_ok=True)
    (folder / DONE).unlink(missing_ok=True)


def _lock(folder: Path, out: Path) -> int:
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # its last holder finished and removed the folder just now
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(folder / _LOCK)):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise JobLocked(
                f"another process works on {out}. Wait for it, or give another output."
            ) from None
        except FileNotFoundError:  # the file that was locked is gone
            pass
        os.close(handle)
