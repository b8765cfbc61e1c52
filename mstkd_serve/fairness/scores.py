"""Scores of verification pairs: what every measurement starts from."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError

REQUIRED: Final[tuple[str, ...]] = ("group", "genuine", "score")
OPTIONAL: Final[tuple[str, ...]] = (
    "fold",
    "subgroup",
    "second_group",
    "first_identity",
    "second_identity",
)
_TRUTH: Final = {"1": True, "0": False, "true": True, "false": False, "True": True, "False": False}
_LARGEST = 1e100  # the square of a score must be finite
_ROWS = 5_000  # small blocks: large ones keep the garbage collector busy


@dataclass(frozen=True, eq=False)
class Scores:
    """Scored pairs in columns.

    Attributes:
        group_names: Sorted names; each has genuine and impostor pairs.
        group: int32 `(P,)`, index into `group_names`.
        genuine: bool `(P,)`.
        score: float64 `(P,)`, finite; higher is more alike.
        extra: Optional columns by name, each int32 `(P,)` codes of equal texts; `fold` only
            where folds were given, `second_group` only for impostors across groups.
        names: The texts behind the codes of `extra`.
        source: Where the scores came from, for messages.
    """

    group_names: tuple[str, ...]
    group: NDArray[np.int32]
    genuine: NDArray[np.bool_]
    score: NDArray[np.float64]
    extra: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "scores"

    def __post_init__(self) -> None:
        """Refuse scores that no figure can be computed from."""
        if not self.group.shape == self.genuine.shape == self.score.shape == (len(self.score),):
            raise DataError(
                f"{self.source}: group {self.group.shape}, genuine {self.genuine.shape} and score "
                f"{self.score.shape} must be vectors of one length."
            )
        if len(self.score) == 0:
            raise DataError(f"{self.source}: there are no pairs.")
        unusable = np.flatnonzero(~(np.abs(self.score) <= _LARGEST))
        if len(unusable):
            raise DataError(
                f"{self.source}: {len(unusable)} scores are not finite (or beyond 1e100); "
                f"the first is that of pair {int(unusable[0])} (counted from 0). Drop these "
                "pairs, or score them again."
            )
        for index, name in enumerate(self.group_names):
            members = self.genuine[self.group == index]
            for kind, missing in (("genuine", not members.any()), ("impostor", members.all())):
                if missing:
                    raise DataError(
                        f"{self.source}: group {name!r} has no {kind} pairs. Add some, or leave "
                        "the group out."
                    )

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.score)


def make_scores(
    group: Iterable[str], genuine: Iterable[bool], score: Iterable[float], source: str = "scores"
) -> Scores:
    """Make scores from columns in memory.

    Raises:
        DataError: The columns cannot be used.
    """
    names, codes = np.unique(np.asarray(list(group), np.str_), return_inverse=True)
    return Scores(
        group_names=tuple(names.tolist()),
        group=codes.astype(np.int32),
        genuine=np.asarray(list(genuine), np.bool_),
        score=np.asarray(list(score), np.float64),
        source=source,
    )


def read_scores(path: Path) -> Scores:
    """Read a CSV or Parquet file of scored pairs, a block at a time.

    Columns `group, genuine, score` are needed; `fold`, `subgroup`, `second_group` (the other
    face's group, for impostors across groups), `first_identity` and `second_identity` are used
    where they are; others are ignored. `genuine` is 1 or 0, or true or false.

    Raises:
        DataError: The file is missing, lacks a column, or a row cannot be used (with its number).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a CSV or Parquet file of scores.")
    blocks = _parquet_blocks(path) if path.suffix == ".parquet" else _csv_blocks(path)
    columns = _Columns(str(path))
    for block in blocks:
        columns.add(block)
    return columns.finish()


def _csv_blocks(path: Path) -> Iterator[dict[str, list[Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            wanted = _wanted(header, path)
            rows: list[list[str]] = []
            for row in reader:
                if len(row) != len(header):
                    if not row:
                        continue
                    raise DataError(
                        f"{path}: line {reader.line_num} has {len(row)} fields, the header "
                        f"{len(header)}."
                    )
                rows.append(row)
                if len(rows) == _ROWS:
                    yield _columns_of(rows, wanted)
                    rows = []
            yield _columns_of(rows, wanted)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error}).") from error


def _columns_of(rows: list[list[str]], wanted: dict[str, int]) -> dict[str, list[Any]]:
    columns = list(zip(*rows, strict=True))
    return {name: list(columns[index]) if rows else [] for name, index in wanted.items()}


def _parquet_blocks(path: Path) -> Iterator[dict[str, list[Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs pip install 'mstkd-serve[report]'.") from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        wanted = _wanted(file.schema_arrow.names, path)
        for batch in file.iter_batches(_ROWS, columns=list(wanted)):
            block = batch.to_pydict()
            for name in wanted:
                if name != "score":
                    block[name] = ["" if value is None else str(value) for value in block[name]]
            yield block
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).") from error


def _wanted(header: list[str], path: Path) -> dict[str, int]:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}; it has {', '.join(header) or 'none'}. "
            f"Needed are {', '.join(REQUIRED)}."
        )
    return {name: header.index(name) for name in (*REQUIRED, *OPTIONAL) if name in header}


class _Columns:
    """Gathers blocks into compact arrays."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._codes: dict[str, dict[str, int]] = {}
        self._rows = 0

    def add(self, block: dict[str, list[Any]]) -> None:
        """Convert one block."""
        for name, values in block.items():
            self._parts.setdefault(name, []).append(self._convert(name, values))
        self._rows += len(block["score"])

    def _convert(self, name: str, values: list[Any]) -> NDArray[Any]:
        if name == "score":
            return self._converted(name, values, float, np.float64)
        if name == "genuine":
            return self._converted(name, values, _TRUTH.__getitem__, np.bool_)
        if name == "group" and not all(values):
            row = self._rows + [bool(value) for value in values].index(False) + 1
            raise DataError(f"{self._source}: row {row} has no group. Name it, or drop the pair.")
        codes = self._codes.setdefault(name, {})
        return np.array([codes.setdefault(text, len(codes)) for text in values], np.int32)

    def _converted(self, name: str, values: list[Any], to: Any, dtype: Any) -> NDArray[Any]:
        try:
            return np.fromiter(map(to, values), dtype, len(values))
        except (ValueError, KeyError, TypeError):
            for row, value in enumerate(values):
                try:
                    to(value)
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{self._source}: row {self._rows + row + 1} has {name} {value!r}; "
                        f"{'a number' if name == 'score' else '1 or 0'} is needed."
                    ) from error
            raise

    def finish(self) -> Scores:
        """Join the blocks."""
        whole = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        first_seen = list(self._codes.get("group", {}))
        order = sorted(range(len(first_seen)), key=first_seen.__getitem__)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        extra = {name: whole[name] for name in OPTIONAL if name in whole}
        names = {name: tuple(self._codes[name]) for name in extra}
        scores = (rank[whole["group"]], whole["genuine"], whole["score"])
        names_sorted = tuple(first_seen[index] for index in order)
        return Scores(names_sorted, *scores, extra, names, self._source)
