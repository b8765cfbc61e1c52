"""Lists of pairs of image files: our CSV, the layout of RFW, the list of LFW."""

import csv
from dataclasses import dataclass
from pathlib import Path

from mstkd_serve.errors import DataError

_NEEDED = ("first", "second", "group", "genuine")
_SUFFIXES = (".jpg", ".png", ".jpeg", ".bmp")


@dataclass(frozen=True)
class ImagePair:
    """Two image files.

    Attributes:
        first: Path of an aligned face.
        second: Path of another.
        group: The pair's group.
        genuine: Whether both show one identity.
        fold: Fold of the protocol, or None.
        first_identity: Name of the first identity, or None where unknown.
        second_identity: Name of the second identity, or None where unknown.
    """

    first: Path
    second: Path
    group: str
    genuine: bool
    fold: str | None = None
    first_identity: str | None = None
    second_identity: str | None = None


def read_pair_list(path: Path) -> list[ImagePair]:
    """Read pairs from a CSV file, a folder in RFW's layout, or LFW's `pairs.txt`.

    A CSV file has the columns `first, second, group, genuine` and may have `fold,
    first_identity, second_identity`; image paths are relative to the file. RFW's layout is
    `txts/GROUP/GROUP_pairs.txt` beside `data/GROUP/NAME/NAME_0001.jpg`. LFW's `pairs.txt` stands
    beside the folders of its people.

    Raises:
        DataError: The list is missing or malformed (with the line), or names a missing image.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Give a list of pairs.")
    try:
        if path.is_dir():
            pairs = _read_rfw(path)
        elif path.suffix == ".csv":
            pairs = _read_csv(path)
        else:
            pairs = _read_named(path, path.parent, path.parent.name, skip_header=True)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable list of pairs ({error}).") from error
    if not pairs:
        raise DataError(f"{path}: lists no pairs.")
    for pair in pairs:
        for image in (pair.first, pair.second):
            if not image.is_file():
                raise DataError(f"{path}: names {image}, which does not exist.")
    return pairs


def _read_csv(path: Path) -> list[ImagePair]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}: has no column {', '.join(missing)}.")
        pairs = []
        for row in reader:
            empty = [name for name in _NEEDED if not row[name]]
            if empty:
                raise DataError(f"{path}: line {reader.line_num} has no {', '.join(empty)}.")
            if row["genuine"] not in ("0", "1"):
                raise DataError(
                    f"{path}: line {reader.line_num} has genuine {row['genuine']!r}; "
                    "1 or 0 is needed."
                )
            pairs.append(
                ImagePair(
                    first=path.parent / row["first"],
                    second=path.parent / row["second"],
                    group=row["group"],
                    genuine=row["genuine"] == "1",
                    fold=row.get("fold"),
                    first_identity=row.get("first_identity"),
                    second_identity=row.get("second_identity"),
                )
            )
    return pairs


def _read_rfw(folder: Path) -> list[ImagePair]:
    lists = sorted(folder.glob("txts/*/*_pairs.txt"))
    if not lists:
        raise DataError(f"{folder}: has no txts/GROUP/GROUP_pairs.txt, so it is not RFW's layout.")
    return [
        pair
        for path in lists
        for pair in _read_named(
            path, folder / "data" / path.parent.name, path.parent.name, skip_header=False
        )
    ]


def _read_named(path: Path, images: Path, group: str, *, skip_header: bool) -> list[ImagePair]:
    """Read lines `NAME i j` (genuine) and `NAME i NAME j` (impostor)."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or (skip_header and number == 1 and len(words) <= 2):
            continue
        if len(words) == 3:
            words = [words[0], words[1], words[0], words[2]]
        if len(words) != 4 or not (words[1].isdecimal() and words[3].isdecimal()):
            raise DataError(f"{path}: line {number} is neither 'NAME i j' nor 'NAME i NAME j'.")
        a, i, b, j = words
        pairs.append(
            ImagePair(
                first=_numbered(images / a, int(i)),
                second=_numbered(images / b, int(j)),
                group=group,
                genuine=a == b,
                first_identity=a,
                second_identity=b,
            )
        )
    return pairs


def _numbered(folder: Path, number: int) -> Path:
    """Return the picture of a person with a number, whatever its format."""
    candidates = [folder / f"{folder.name}_{number:04d}{suffix}" for suffix in _SUFFIXES]
    return next((path for path in candidates if path.is_file()), candidates[0])
