"""Faces in folders: `GROUP/IDENTITY/*.jpg`, or `GROUP/*.jpg` where nobody knows who they are."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from mstkd_serve.errors import DataError
from mstkd_training.data.sources.sample import Sample

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class FolderSource:
    """Images in `GROUP/IDENTITY/`, in sorted order; other files are passed over.

    Args:
        root: The folder of the groups' folders.
        groups: Names of the groups' folders.
        labelled: False takes the images in `GROUP/`, each as an identity of its own.

    Raises:
        DataError: The root or a group's folder is missing.
    """

    def __init__(self, root: Path, groups: Sequence[str], *, labelled: bool = True) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder. Set data.path to the folder of the groups.")
        self._labelled = labelled
        self._folders: list[tuple[str, Path, list[str]]] = []
        for group in groups:
            if not (root / group).is_dir():
                found = ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
                raise DataError(
                    f"{root}: no folder of group {group!r}; it has {found or 'no folders'}. "
                    "Name the groups in data.groups as their folders are named."
                )
            people = sorted(entry for entry in (root / group).iterdir() if entry.is_dir())
            for folder in people if labelled else [root / group]:
                names = sorted(
                    entry.name
                    for entry in folder.iterdir()
                    if entry.suffix.lower() in IMAGE_SUFFIXES
                )
                self._folders.append((group, folder, names))

    def __len__(self) -> int:
        """Return the number of image files."""
        return sum(len(names) for _, _, names in self._folders)

    def __iter__(self) -> Iterator[Sample]:
        """Yield the images, group by group in the given order."""
        for group, folder, names in self._folders:
            for name in names:
                path = folder / name
                identity = folder.name if self._labelled else name
                yield Sample(str(path), group, identity, path.read_bytes)


def write_folders(root: Path, faces: Iterable[tuple[str, str, bytes]]) -> None:
    """Write faces as `GROUP/IDENTITY/IDENTITY_0001.jpg`, or `.png` where they are encoded so.

    Args:
        root: The folder to write to; created if missing.
        faces: Group, identity and encoded image of each face.
    """
    numbers: dict[Path, int] = {}
    for group, identity, encoded in faces:
        folder = root / group / identity
        folder.mkdir(parents=True, exist_ok=True)
        numbers[folder] = numbers.get(folder, 0) + 1
        suffix = ".png" if encoded.startswith(b"\x89PNG") else ".jpg"
        (folder / f"{identity}_{numbers[folder]:04d}{suffix}").write_bytes(encoded)
