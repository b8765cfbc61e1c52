"""Identities and images that sit where they must not."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Leak:
    """One thing in two places.

    Attributes:
        item: The identity or image.
        places: Names of the lists or groups that hold it, sorted.
    """

    item: str
    places: tuple[str, ...]


def find_leaks(lists: Mapping[str, Iterable[str]]) -> list[Leak]:
    """Find what is in more than one list: groups of a test set, or training and test.

    Args:
        lists: Identities or image digests by the name of their list; repeats in a list are fine.

    Returns:
        Sorted by item.
    """
    places: dict[str, set[str]] = {}
    for name, items in lists.items():
        for item in items:
            places.setdefault(item, set()).add(name)
    return [
        Leak(item, tuple(sorted(names))) for item, names in sorted(places.items()) if len(names) > 1
    ]


def file_digests(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the SHA-256 of each file's bytes, with one path that has it.

    Raises:
        OSError: A file cannot be read.
    """
    found: dict[str, Path] = {}
    for path in paths:
        with path.open("rb") as stream:
            found.setdefault(hashlib.file_digest(stream, "sha256").hexdigest(), path)
    return found
