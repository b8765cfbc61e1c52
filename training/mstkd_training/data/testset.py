"""Test pairs: faces that nothing was trained on, with the pairs of a protocol in its order."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.pair_lists import read_pair_list
from mstkd_serve.files import atomic_path
from mstkd_training.data.encoded import UnreadableImageError, WrongSizeError, decode_face
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.packed import PackedImages, decoding_threads
from mstkd_training.data.pairs import Pairs
from mstkd_training.data.verification_bin import read_verification_bin

_FOLDS: Final = 10
_CHUNK: Final = 1024


@dataclass(frozen=True, eq=False)
class TestSet:
    """Faces, pairs, and what was left out.

    Attributes:
        faces: The faces.
        pairs: Pairs within groups, in the order of their source.
        unreadable: Name of each image that was skipped, and why; its pairs are left out.
    """

    __test__ = False  # not a pytest class

    faces: FaceSet
    pairs: Pairs
    unreadable: tuple[tuple[str, str], ...] = ()

    def trimmed(self) -> "TestSet":
        """Return the same pairs with the faces that they need, in memory."""
        couples = np.stack([self.pairs.first, self.pairs.second])
        rows, places = np.unique(couples, return_inverse=True)
        first, second = places.reshape(2, -1)
        faces = FaceSet(
            self.faces.images[rows],
            self.faces.identities[rows],
            self.faces.groups[rows],
            self.faces.group_names,
        )
        return replace(self, faces=faces, pairs=replace(self.pairs, first=first, second=second))


def bins_test_set(files: Mapping[str, Path]) -> TestSet:
    """Read one verification file a group.

    The files name no identities: the two images of a genuine pair get one of their own.

    Args:
        files: The file of each group.

    Raises:
        DataError: A file cannot be used, or an image has another size than 112 x 112.
    """
    gathered = _Gathered(tuple(files))
    for place, path in enumerate(files.values()):
        images, same = read_verification_bin(path)
        folds = _stretches(len(same))
        for number, genuine in enumerate(same):
            first, second = (
                gathered.add(place, f"{path} image {row}", partial(bytes, images[row]))
                for row in (2 * number, 2 * number + 1)
            )
            gathered.join(first, second, bool(genuine), place, int(folds[number]))
    return gathered.finish()


def listed_test_set(path: Path, groups: Sequence[str] = ()) -> TestSet:
    """Read RFW's folder, LFW's `pairs.txt` or a CSV file of pairs; see `read_pair_list`.

    Pairs keep the order of their list. Folds are those of the list, or else the ten equal
    stretches of each group's pairs, as RFW and LFW number them.

    Args:
        path: The list, or RFW's folder.
        groups: The groups to take, in this order; all of the list if empty.

    Raises:
        DataError: The list is malformed, names a missing image or lacks a group, or an image has
            another size than 112 x 112.
    """
    listed = read_pair_list(path)
    found = list(dict.fromkeys(pair.group for pair in listed))
    missing = sorted(set(groups) - set(found))
    if missing:
        raise DataError(f"{path}: has no pairs of {', '.join(missing)}; it has {', '.join(found)}.")
    gathered = _Gathered(tuple(groups or found))
    for place, group in enumerate(groups or found):
        mine = [pair for pair in listed if pair.group == group]
        names = list(dict.fromkeys(pair.fold or None for pair in mine))
        folds = _stretches(len(mine))
        for number, pair in enumerate(mine):
            sides = ((pair.first, pair.first_identity), (pair.second, pair.second_identity))
            first, second = (
                gathered.add(place, str(image), image.read_bytes, identity)
                for image, identity in sides
            )
            fold = int(folds[number]) if None in names else names.index(pair.fold)
            gathered.join(first, second, pair.genuine, place, fold)
    return gathered.finish()


def write_test_set(path: Path, tests: TestSet) -> None:
    """Write faces and pairs as one `.npz` file, with bounded memory.

    Its arrays: `images` uint8 `(N, 112, 112, 3)`, `identities` and `groups` int64 `(N,)`,
    `group_names` `(G,)`; `first`, `second` (rows of `images`), `genuine`, `pair_groups` and,
    where the protocol has folds, `fold`, each `(P,)`.
    """
    faces, pairs = tests.faces, tests.pairs
    arrays: dict[str, NDArray[Any]] = {
        "identities": faces.identities,
        "groups": faces.groups,
        "group_names": np.array(faces.group_names),
        "first": pairs.first,
        "second": pairs.second,
        "genuine": pairs.genuine,
        "pair_groups": pairs.groups,
    }
    if pairs.folds is not None:
        arrays["fold"] = pairs.folds
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("images.npy", "w", force_zip64=True) as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": faces.images.shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, len(faces), _CHUNK):
                stream.write(faces.images[start : start + _CHUNK].tobytes())
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def write_rfw(
    root: Path, images: Mapping[tuple[str, str, int], bytes], pairs: Mapping[str, Sequence[str]]
) -> None:
    """Write RFW's layout: `data/GROUP/NAME/NAME_0001.jpg` and `txts/GROUP/GROUP_pairs.txt`.

    Args:
        root: The folder to write to; created if missing.
        images: The encoded image of each group, name and number.
        pairs: For each group the lines of its list, `NAME i j` or `NAME i NAME j`.
    """
    for (group, name, number), encoded in images.items():
        folder = root / "data" / group / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}_{number:04d}.jpg").write_bytes(encoded)
    for group, lines in pairs.items():
        path = root / "txts" / group / f"{group}_pairs.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _stretches(count: int) -> NDArray[np.int64]:
    """Return the fold of each of some pairs in the protocol's order: ten equal stretches."""
    return np.arange(count, dtype=np.int64) * _FOLDS // max(count, 1)


class _Gathered:
    """Images and pairs as they are listed, before anything is decoded."""

    def __init__(self, groups: tuple[str, ...]) -> None:
        self._group_names = groups
        self._rows: dict[tuple[int, str], int] = {}
        self._reads: list[Callable[[], bytes]] = []
        self._same_as: list[int] = []  # images of one person form a tree
        self._people: dict[tuple[int, str], int] = {}
        self._pairs: list[tuple[int, int, bool, int, int]] = []

    def add(
        self, group: int, name: str, read: Callable[[], bytes], identity: str | None = None
    ) -> int:
        """Return the row of an image; the same image of a group has one row."""
        row = self._rows.setdefault((group, name), len(self._rows))
        if row == len(self._reads):
            self._reads.append(read)
            self._same_as.append(row)
        if identity is not None:
            self._unite(row, self._people.setdefault((group, identity), row))
        return row

    def join(self, first: int, second: int, genuine: bool, group: int, fold: int) -> None:
        """Add a pair."""
        self._pairs.append((first, second, genuine, group, fold))
        if genuine:
            self._unite(first, second)

    def finish(self) -> TestSet:
        """Check every image by decoding it, and leave out pairs of those that cannot be read.

        Raises:
            DataError: An image has another size than 112 x 112, or a group keeps no pair.
        """
        names = [name for _, name in self._rows]
        unreadable: list[tuple[str, str]] = []
        encoded: list[bytes] = []
        rows = np.full(len(names), -1, np.int64)
        for row, image in enumerate(decoding_threads().map(_checked, self._reads, names)):
            if isinstance(image, str):
                unreadable.append((names[row], image))
            else:
                rows[row] = len(encoded)
                encoded.append(image)
        table = np.array(self._pairs, np.int64).reshape(-1, 5)
        first, second = rows[table[:, 0]], rows[table[:, 1]]
        whole = (first >= 0) & (second >= 0)
        for place, group in enumerate(self._group_names):
            if not (whole & (table[:, 3] == place)).any():
                raise DataError(f"group {group!r} has no pair whose images can be read.")
        kept = np.flatnonzero(rows >= 0)
        lengths = [0, *map(len, encoded)]
        faces = FaceSet(
            images=PackedImages(
                np.frombuffer(b"".join(encoded), np.uint8), np.cumsum(lengths, dtype=np.int64)
            ),
            identities=np.array([self._root(int(row)) for row in kept], np.int64),
            groups=np.array([group for group, _ in self._rows], np.int64)[kept],
            group_names=self._group_names,
        )
        pairs = Pairs(
            first=first[whole],
            second=second[whole],
            genuine=table[whole, 2].astype(np.bool_),
            groups=table[whole, 3],
            folds=table[whole, 4],
        )
        return TestSet(faces, pairs, tuple(unreadable))

    def _root(self, row: int) -> int:
        while self._same_as[row] != row:
            self._same_as[row] = self._same_as[self._same_as[row]]
            row = self._same_as[row]
        return row

    def _unite(self, first: int, second: int) -> None:
        self._same_as[self._root(first)] = self._root(second)


def _checked(read: Callable[[], bytes], name: str) -> bytes | str:
    """Return the encoded image, or why it cannot be read."""
    try:
        encoded = read()
        decode_face(encoded)
    except WrongSizeError as error:
        raise DataError(
            f"{name}: {error}, needed are faces of 112 x 112, aligned by the five points of "
            "ArcFace. Align them (mstkd_client's align)."
        ) from error
    except (UnreadableImageError, OSError) as error:
        return str(error)
    return encoded
