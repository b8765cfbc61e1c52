"""InsightFace's RecordIO sets: `train.rec`, `train.idx`, `property`.

Record 0 of a set as InsightFace makes it has two labels (flag 2): one more than the last image's
key, and one more than the last identity's. Images have the keys from 1; behind them one record
an identity gives the range of its images. Sets made by `im2rec` have flag 0 in record 0, and
every record is an image. In both an image's first label is the number of its identity.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from mstkd_serve.errors import DataError
from mstkd_training.data.encoded import SIDE, UnreadableImageError
from mstkd_training.data.sources.labels import read_label_rows, refuse_two_groups
from mstkd_training.data.sources.recordio_file import (
    ImageRecord,
    pack_record,
    read_index,
    read_record,
    write_records,
)
from mstkd_training.data.sources.sample import Sample

_REC: Final = "train.rec"


class RecordSource:
    """Images of one record set a group, or of one set with a CSV file of groups.

    Args:
        root: The folder with one set a group in a folder of its name, or with one set.
        groups: The groups to take.
        labels: For one set: a CSV file with the group of each identity's number. Needed where
            there is more than one group. Identities of other groups are passed over.
        identity: The column of the identity's number.
        group: The column of the group.

    Raises:
        DataError: A file is missing or malformed, or its first record is damaged.
    """

    def __init__(
        self,
        root: Path,
        groups: Sequence[str],
        labels: Path | None = None,
        *,
        identity: str = "identity",
        group: str = "group",
    ) -> None:
        self._group_of: dict[str, str] | None = None
        if (root / _REC).is_file():
            if labels is not None:
                rows = read_label_rows(labels, {identity, group})
                self._group_of = refuse_two_groups(labels, ((r[identity], r[group]) for r in rows))
            elif len(groups) != 1:
                raise DataError(
                    f"{root}: one record set for {len(groups)} groups. Set data.labels to a CSV "
                    f"file with the group of each identity, or give a set a group in {root}/GROUP."
                )
            self._sets = [(groups[0], root)]
        else:
            self._sets = [(name, root / name) for name in groups]
        self._groups = frozenset(groups)
        self._indices = [_image_offsets(folder) for _, folder in self._sets]

    def __len__(self) -> int:
        """Return the number of image records, those of other groups included."""
        return sum(map(len, self._indices))

    def __iter__(self) -> Iterator[Sample]:
        """Yield the images by set and key; a damaged record is of the set's own group."""
        for (group, folder), offsets in zip(self._sets, self._indices, strict=True):
            path = folder / _REC
            for key, offset in offsets.items():
                name = f"{path} record {key}"
                try:
                    record = read_record(path, offset)
                except UnreadableImageError as error:
                    yield Sample(name, group, "", partial(_raise, error))
                    continue
                identity = f"{record.labels[0]:.0f}"
                of = group if self._group_of is None else self._group_of.get(identity)
                if of is None:
                    raise DataError(
                        f"{name}: identity {identity} has no group. Add it to "
                        "data.labels; its group may be one that is not trained on."
                    )
                if of in self._groups:
                    yield Sample(name, of, identity, partial(_data_of, record))


def write_record_set(
    folder: Path, faces: Iterable[tuple[int, bytes]], *, ranges: bool = True
) -> None:
    """Write faces as `train.rec`, `train.idx` and `property`.

    Args:
        folder: Where to; created if missing.
        faces: The number of each face's identity, from 0, and the encoded image; with `ranges`
            the faces of an identity follow one another.
        ranges: With the records of identities that InsightFace writes; else as `im2rec` does.
    """
    listed = list(faces)
    identities = [number for number, _ in listed]
    classes = sorted(set(identities))
    contents = [pack_record([number], encoded) for number, encoded in listed]
    if ranges:
        contents = [pack_record([number, 0], encoded) for number, encoded in listed]
        starts = [identities.index(number) + 1 for number in classes]
        stops = [*starts[1:], len(listed) + 1]
        first = len(listed) + 1
        contents.insert(0, pack_record([first, first + len(classes)], b""))
        contents += [pack_record([a, b], b"") for a, b in zip(starts, stops, strict=True)]
    write_records(folder, contents)
    (folder / "property").write_text(f"{len(classes)},{SIDE},{SIDE}\n", encoding="ascii")


def _image_offsets(folder: Path) -> dict[int, int]:
    """Return the offset of each image's record by key."""
    path = folder / _REC
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Set data.path to the folder of {_REC}, or to a folder with "
            "one such folder a group."
        )
    _check_property(folder / "property")
    offsets = read_index(folder / "train.idx")
    if 0 not in offsets:
        return offsets
    try:
        first = read_record(path, offsets[0])
    except UnreadableImageError as error:
        raise DataError(
            f"{path}: its first record cannot be read ({error}). Copy the set again."
        ) from error
    if first.flag == 0:
        return offsets
    return {key: offset for key, offset in offsets.items() if 1 <= key < int(first.labels[0])}


def _check_property(path: Path) -> None:
    """Refuse sets that say that their faces have another size; the file may be missing."""
    if not path.is_file():
        return
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if [word.strip() for word in text.split(",")][1:] != [str(SIDE)] * 2:
        raise DataError(
            f"{path}: says {text!r}, needed is 'IDENTITIES,{SIDE},{SIDE}'. Align the faces to "
            f"{SIDE} x {SIDE} and write the set again."
        )


def _raise(error: UnreadableImageError) -> bytes:
    raise error


def _data_of(record: ImageRecord) -> bytes:
    return record.data
