"""Parquet: the rows of a part, and all parts joined into the output. The only user of pyarrow."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import MissingExtra
from mstkd_client.bulk._errors import BulkError
from mstkd_client.bulk._storage import atomic_file
from mstkd_client.bulk.job import Job, Model

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as _error:
    raise MissingExtra(
        "bulk jobs need pyarrow. Install it: pip install 'mstkd-client[bulk]'"
    ) from _error

ROWS_OF_A_GROUP: Final = 16_384
"""Rows of a row group of the output: 32 MiB of embeddings of 512 dimensions."""
_UNREADABLE: Final = b"mstkd.unreadable"


class PartSummary(NamedTuple):
    """What a finished part holds.

    Attributes:
        part: Its number.
        files: Files it covers.
        rows: Faces among them.
        unreadable: Files that gave none.
    """

    part: int
    files: int
    rows: int
    unreadable: int


@dataclass(slots=True)
class PartRows:
    """The rows of a part, column by column.

    Attributes:
        paths: Of the photo, one a face.
        faces: Index of the face within its photo.
        vectors: float32 `(n, dim)` chunks of embeddings.
        scores: Of the detector, 0 to 1; empty where faces come aligned.
        boxes: float32 `(4,)` xyxy in pixels of the photo; empty where faces come aligned.
        unreadable: Path and reason of each file that gave no face.
    """

    paths: list[str] = field(default_factory=list)
    faces: list[int] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    boxes: list[NDArray[np.float32]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def schema(model: Model, *, detected: bool) -> Any:
    """Build the output's pyarrow schema: columns, and the model in `mstkd.*` metadata."""
    fields = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("face", pa.int32(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32(), model.embedding_dim), nullable=False),
    ]
    if detected:
        fields.append(pa.field("score", pa.float32(), nullable=False))
        fields.append(pa.field("bbox", pa.list_(pa.float32(), 4), nullable=False))
    metadata = {
        "mstkd.contract_id": model.contract_id,
        "mstkd.contract": json.dumps(dict(model.contract), sort_keys=True),
        "mstkd.model_name": model.model_name,
        "mstkd.model_version": model.model_version,
    }
    return pa.schema(fields, metadata=metadata)


def write_part(job: Job, part: int, rows: PartRows) -> PartSummary:
    """Write a part, rows and unreadable files in one step; again if it is there already.

    Raises:
        OutputError: The file system refused.
    """
    layout = schema(job.model, detected=bool(job.detector))
    vectors = np.concatenate([np.empty((0, job.model.embedding_dim), np.float32), *rows.vectors])
    columns = [
        pa.array(rows.paths, pa.string()),
        pa.array(rows.faces, pa.int32()),
        _lists(vectors, layout.field("embedding").type),
    ]
    if job.detector:
        boxes = np.array(rows.boxes, np.float32).reshape(-1, 4)
        columns.append(pa.array(rows.scores, pa.float32()))
        columns.append(_lists(boxes, layout.field("bbox").type))
    unreadable = json.dumps(rows.unreadable).encode("ascii")
    layout = layout.with_metadata({**layout.metadata, _UNREADABLE: unreadable})
    with atomic_file(job.part_path(part)) as file, _writer(file, layout) as writer:
        writer.write_table(pa.table(columns, schema=layout))
    return PartSummary(part, _files(job, part), len(rows.paths), len(rows.unreadable))


def read_summary(job: Job, part: int) -> PartSummary | None:
    """Tell what a part holds; None where it is not done, or its file is damaged."""
    try:
        footer = pq.read_metadata(job.part_path(part))
        unreadable = json.loads(footer.metadata[_UNREADABLE])
    except (OSError, pa.ArrowException, KeyError, TypeError):
        return None
    return PartSummary(part, _files(job, part), footer.num_rows, len(unreadable))


def merge(job: Job, rows_to: Path, report_to: Path) -> tuple[int, int]:
    """Join all parts, in their order, a row group at a time.

    Args:
        job: With all its parts done.
        rows_to: The Parquet file to write.
        report_to: The CSV file of unreadable files to write; it has a header only if there are
            none.

    Returns:
        The number of rows and of unreadable files.

    Raises:
        BulkError: A part is not there.
        OutputError: The file system refused.
    """
    layout = schema(job.model, detected=bool(job.detector))
    rows = 0
    with (
        atomic_file(rows_to) as file,
        _writer(file, layout) as writer,
        atomic_file(report_to) as report_file,
    ):
        report = _Report(report_file)
        for table in _groups(job, layout, report):
            writer.write_table(table)
            rows += table.num_rows
    return rows, report.count


class _Report:
    """The CSV of unreadable files; names that are not UTF-8 are escaped."""

    def __init__(self, file: BinaryIO) -> None:
        self.count = 0
        self._file = file
        self._rows = csv.writer(self)
        self._rows.writerow(("path", "reason"))

    def add(self, unreadable: Sequence[tuple[str, str]]) -> None:
        self.count += len(unreadable)
        self._rows.writerows(unreadable)

    def write(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "backslashreplace"))


def _groups(job: Job, layout: Any, report: _Report) -> Iterator[Any]:
    """Yield the rows of all parts as tables of about `ROWS_OF_A_GROUP` rows."""
    waiting: list[Any] = []
    for part in range(len(job.offsets)):
        try:
            table = pq.ParquetFile(job.part_path(part)).read()
        except (OSError, pa.ArrowException) as error:
            raise BulkError(
                f"{job.part_path(part)} is not there or damaged, though its worker finished. All "
                "machines must share that folder. Start the same command again."
            ) from error
        report.add(json.loads(table.schema.metadata[_UNREADABLE]))
        waiting.append(table.replace_schema_metadata(layout.metadata))
        if sum(each.num_rows for each in waiting) >= ROWS_OF_A_GROUP:
            yield pa.concat_tables(waiting)
            waiting.clear()
    if waiting:
        yield pa.concat_tables(waiting)


def _writer(file: BinaryIO, layout: Any) -> Any:
    """Open a Parquet writer. Unit vectors do not compress, so only the paths are compressed."""
    compression = {name: "zstd" if name == "path" else "none" for name in _leaves(layout)}
    return pq.ParquetWriter(
        file, layout, compression=compression, use_dictionary=False, write_statistics=["path"]
    )


def _leaves(layout: Any) -> Iterable[str]:
    for column in layout:
        nested = pa.types.is_fixed_size_list(column.type)
        yield f"{column.name}.list.element" if nested else column.name


def _lists(values: NDArray[np.float32], kind: Any) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)


def _files(job: Job, part: int) -> int:
    return min(job.part_size, job.files - part * job.part_size)
