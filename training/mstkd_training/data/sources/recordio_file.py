"""MXNet's RecordIO and its image header, read and written without MXNet.

A record is a magic number, a length of 29 bits with a flag of 3 bits above it, and the data,
padded to 4 bytes; all little-endian. Data that holds the magic number at a multiple of 4 is cut
there into parts: flag 1 marks the first, 2 those between, 3 the last, and a reader puts the
number back between them. An image record begins with flag (uint32), label (float32) and two ids
(uint64); where the flag is not 0 it counts the float32 labels that follow, which then replace
that one. (Apache MXNet's and DMLC's documentation of `recordio`.)
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from mstkd_serve.errors import DataError
from mstkd_training.data.encoded import UnreadableImageError

_MAGIC: Final = 0xCED7230A
_MAGIC_BYTES: Final = struct.pack("<I", _MAGIC)
_FRAME: Final = struct.Struct("<II")
_HEADER: Final = struct.Struct("<IfQQ")
_LENGTH_BITS: Final = 29
_MOST_LABELS: Final = 64


@dataclass(frozen=True)
class ImageRecord:
    """The contents of one record.

    Attributes:
        labels: One label where `flag` is 0, else `flag` labels.
        flag: The header's flag.
        data: The encoded image, empty for records that only describe others.
    """

    labels: tuple[float, ...]
    flag: int
    data: bytes


def read_index(path: Path) -> dict[int, int]:
    """Read an `.idx` file: for each key the offset of its record, by rising key.

    Raises:
        DataError: The file is missing, empty or malformed.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        offsets = {int(key): int(offset) for key, offset in (line.split() for line in lines)}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. It belongs beside train.rec.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an index of key and offset ({error}).") from error
    if not offsets:
        raise DataError(f"{path}: is empty. Copy it again.")
    return dict(sorted(offsets.items()))


def read_record(path: Path, offset: int) -> ImageRecord:
    """Read the record at an offset.

    Raises:
        UnreadableImageError: The record is cut off or damaged.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            data, flag = _read_part(stream)
            while flag in (1, 2):
                more, flag = _read_part(stream)
                data += _MAGIC_BYTES + more
        header_flag, label, _, _ = _HEADER.unpack_from(data)
        if header_flag > _MOST_LABELS:
            raise UnreadableImageError(f"record says {header_flag} labels")
        labels = struct.unpack_from(f"<{header_flag}f", data, _HEADER.size) or (label,)
    except struct.error as error:
        raise UnreadableImageError("record is cut off") from error
    return ImageRecord(labels, header_flag, data[_HEADER.size + 4 * header_flag :])


def pack_record(labels: Sequence[float], data: bytes) -> bytes:
    """Return the content of an image record: with flag 0 for one label, else with their number."""
    if len(labels) == 1:
        return _HEADER.pack(0, labels[0], 0, 0) + data
    header = _HEADER.pack(len(labels), 0.0, 0, 0)
    return header + struct.pack(f"<{len(labels)}f", *labels) + data


def write_records(folder: Path, contents: Iterable[bytes]) -> int:
    """Write `train.rec` and `train.idx`, keys from 0, and return the number of records."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with (folder / "train.rec").open("wb") as stream, (folder / "train.idx").open("w") as index:
        for key, content in enumerate(contents):
            index.write(f"{key}\t{stream.tell()}\n")
            parts = _cut_at_magic(content)
            for place, part in enumerate(parts):
                last = place == len(parts) - 1
                flag = 0 if len(parts) == 1 else 1 if place == 0 else 3 if last else 2
                stream.write(_FRAME.pack(_MAGIC, flag << _LENGTH_BITS | len(part)))
                stream.write(part + bytes(-len(part) % 4))
            count += 1
    return count


def _read_part(stream: BinaryIO) -> tuple[bytes, int]:
    """Return one part's data and its flag."""
    magic, word = _FRAME.unpack(stream.read(_FRAME.size))
    if magic != _MAGIC:
        raise UnreadableImageError("no record begins here")
    length, flag = word & ((1 << _LENGTH_BITS) - 1), word >> _LENGTH_BITS
    data = stream.read(length)
    if len(data) < length:
        raise UnreadableImageError("record is cut off")
    stream.seek(-length % 4, 1)
    return data, flag


def _cut_at_magic(content: bytes) -> list[bytes]:
    """Cut the content where the magic number stands at a multiple of 4, and leave that out."""
    parts, start = [], 0
    place = content.find(_MAGIC_BYTES)
    while place >= 0:
        if place % 4 == 0:
            parts.append(content[start:place])
            start = place + 4
        place = content.find(_MAGIC_BYTES, max(place + 1, start))
    return [*parts, content[start:]]
