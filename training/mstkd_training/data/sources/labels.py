"""Faces in any folders, with a CSV file that says who they show and of which group."""

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mstkd_serve.errors import DataError
from mstkd_training.data.sources.sample import Sample

_COLUMN = re.compile(r"\{([^{}]*)\}")


class LabelSource:
    """Images that a CSV file lists, sorted by group, identity and file.

    Args:
        root: The folder that image paths are relative to.
        labels: The CSV file.
        groups: The groups to take, rows of others are passed over.
        file: Path of a row's image with columns in braces, such as `aligned/{name}.png`.
        identity: The column of the identity's name.
        group: The column of the group.

    Raises:
        DataError: The file is missing, malformed or has no such column, or an identity is in
            two groups.
    """

    def __init__(
        self,
        root: Path,
        labels: Path,
        groups: Sequence[str],
        *,
        file: str = "{file}",
        identity: str = "identity",
        group: str = "group",
    ) -> None:
        rows = read_label_rows(labels, {*_COLUMN.findall(file), identity, group})
        refuse_two_groups(labels, ((row[identity], row[group]) for row in rows))
        self._root = root
        wanted = {name: place for place, name in enumerate(groups)}
        self._rows = sorted(
            (wanted[row[group]], row[identity], _filled(file, row))
            for row in rows
            if row[group] in wanted
        )
        self._groups = tuple(groups)

    def __len__(self) -> int:
        """Return the number of rows of the groups."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        """Yield the images, group by group in the given order."""
        for place, identity, file in self._rows:
            path = self._root / file
            yield Sample(str(path), self._groups[place], identity, path.read_bytes)


def _filled(pattern: str, row: Mapping[str, str]) -> str:
    """Return the pattern with the row's values in place of column names in braces."""
    return _COLUMN.sub(lambda match: row[match[1]], pattern)


def read_label_rows(path: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """Read some columns of a CSV file.

    Raises:
        DataError: The file is missing, no CSV file, lacks a column, or a row lacks a value.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = sorted(set(columns) - set(reader.fieldnames or ()))
            if missing:
                raise DataError(
                    f"{path}: has no column {', '.join(missing)}; it has "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}. Correct data.columns."
                )
            rows = []
            for row in reader:
                empty = sorted(name for name in columns if not row[name])
                if empty:
                    raise DataError(
                        f"{path}: line {reader.line_num} has no {', '.join(empty)}. Fill it in, "
                        "or remove the line."
                    )
                rows.append({name: row[name] for name in columns})
            return rows
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Set data.labels to the CSV of labels.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error}).") from error


def refuse_two_groups(path: Path, labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the group of each identity.

    Raises:
        DataError: An identity is in two groups.
    """
    group_of: dict[str, str] = {}
    for identity, group in labels:
        if group_of.setdefault(identity, group) != group:
            raise DataError(
                f"{path}: identity {identity} is in the groups {group_of[identity]!r} and "
                f"{group!r}; an identity belongs to one. Correct the file."
            )
    return group_of


def write_labels(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write a CSV file of labels with the columns `file`, `identity` and `group`."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "identity", "group"))
        writer.writerows(rows)
