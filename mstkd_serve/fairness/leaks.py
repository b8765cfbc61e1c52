"""Identities and images that sit where they must not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


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
