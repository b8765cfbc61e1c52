"""One image of a source, before anything was read of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sample:
    """An image that a source names.

    Attributes:
        name: What messages call it, such as its path.
        group: Its group.
        identity: Name of its identity, unique within the group.
        read: Returns the encoded image. Raises OSError or `UnreadableImageError` where the
            source is damaged there.
    """

    name: str
    group: str
    identity: str
    read: Callable[[], bytes]


class Source(Protocol):
    """Images of some groups, in an order that does not depend on the machine."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __iter__(self) -> Iterator[Sample]:
        """Yield the images, group by group, identity by identity."""
