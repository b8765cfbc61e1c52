"""Copy a source's images into one file, still encoded, and note who they show."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_training.data.encoded import (
    UnreadableImageError,
    WrongSizeError,
    decode_face,
    resized_face,
)
from mstkd_training.data.packed import decoding_threads
from mstkd_training.data.sources.sample import Sample, Source

_CHUNK = 512
"""Images that are in memory at once."""


@dataclass(frozen=True, eq=False)
class Ingested:
    """What was read of a source.

    Attributes:
        offsets: int64 `(N + 1,)`, where each image lies in the packed file.
        identities: int64 `(N,)`, row of `names`.
        groups: int64 `(N,)`, index into the wanted groups.
        names: Group and name of each identity.
        unreadable: Name of each image that was skipped, and why.
    """

    offsets: NDArray[np.int64]
    identities: NDArray[np.int64]
    groups: NDArray[np.int64]
    names: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...]


def ingest(
    source: Source,
    group_names: Sequence[str],
    packed: Path,
    *,
    exclude: Iterable[str] = (),
    resize: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Ingested:
    """Check every image by decoding it, and pack those that can be read.

    Memory is bounded by some hundred images, whatever the size of the source.

    Args:
        source: The images.
        group_names: Its groups.
        packed: The file to write the encoded images to.
        exclude: Identities to leave out, as `IDENTITY` or `GROUP/IDENTITY`.
        resize: Scale images of another size instead of refusing them.
        progress: Called with the number of images that were seen.

    Raises:
        DataError: An image has another size than 112 x 112 and is not to be scaled, an excluded
            identity is not there, or a group has fewer than two identities or images.
    """
    excluded = _Exclusion(exclude)
    numbers: dict[tuple[str, str], int] = {}
    lengths, identities, groups = [0], [], []
    unreadable: list[tuple[str, str]] = []
    places = {name: place for place, name in enumerate(group_names)}
    samples = iter(source)

    def checked(sample: Sample) -> bytes | UnreadableImageError:
        return _read(sample, resize)

    with packed.open("wb") as stream:
        while chunk := list(islice(samples, _CHUNK)):
            kept = [sample for sample in chunk if not excluded.takes(sample)]
            for sample, image in zip(kept, decoding_threads().map(checked, kept), strict=True):
                if isinstance(image, UnreadableImageError):
                    unreadable.append((sample.name, str(image)))
                    continue
                stream.write(image)
                lengths.append(len(image))
                key = (sample.group, sample.identity)
                identities.append(numbers.setdefault(key, len(numbers)))
                groups.append(places[sample.group])
            if progress is not None:
                progress(len(chunk))
    excluded.refuse_unseen()
    result = Ingested(
        offsets=np.cumsum(lengths, dtype=np.int64),
        identities=np.array(identities, np.int64),
        groups=np.array(groups, np.int64),
        names=tuple(numbers),
        unreadable=tuple(unreadable),
    )
    _require_people(result, group_names)
    return result


class _Exclusion:
    """Identities to leave out; one that never comes up is a mistake in the recipe."""

    def __init__(self, identities: Iterable[str]) -> None:
        self._wanted = frozenset(identities)
        self._seen: set[str] = set()

    def takes(self, sample: Sample) -> bool:
        found = self._wanted & {sample.identity, f"{sample.group}/{sample.identity}"}
        self._seen |= found
        return bool(found)

    def refuse_unseen(self) -> None:
        unseen = sorted(self._wanted - self._seen)
        if unseen:
            raise DataError(f"excluded {', '.join(unseen)}: not in the data. Correct data.exclude.")


def _read(sample: Sample, resize: bool) -> bytes | UnreadableImageError:
    """Return the encoded image, or why it cannot be read."""
    try:
        encoded = sample.read()
        try:
            decode_face(encoded)
        except WrongSizeError as error:
            if not resize:
                raise DataError(
                    f"{sample.name}: {error}, needed are faces of 112 x 112, aligned by the five "
                    "points of ArcFace. Align them (mstkd_client's align), or, where they are "
                    "aligned already, set data.resize=true."
                ) from error
            encoded = resized_face(encoded)
    except UnreadableImageError as error:
        return error
    except OSError as error:
        return UnreadableImageError(error.strerror or str(error))
    return encoded


def _require_people(result: Ingested, group_names: Sequence[str]) -> None:
    """Refuse groups that nothing can be learnt of, before anything is trained."""
    note = (
        f" {len(result.unreadable)} images could not be read, the first is "
        f"{result.unreadable[0][0]} ({result.unreadable[0][1]})."
        if result.unreadable
        else ""
    )
    for place, name in enumerate(group_names):
        members = result.groups == place
        images, people = int(members.sum()), len(np.unique(result.identities[members]))
        if people < 2 or images < 2:
            raise DataError(
                f"group {name!r} has {images} images of {people} identities: give it two "
                f"identities or more, or leave it out of data.groups.{note}"
            )


def identity_rows(result: Ingested, held_out: NDArray[np.bool_]) -> Iterator[tuple[object, ...]]:
    """Yield number, name, group, number of images and whether held out, for each identity."""
    counts = np.bincount(result.identities, minlength=len(result.names))
    kept_out = np.zeros(len(result.names), np.bool_)
    kept_out[result.identities[held_out]] = True
    for number, (group, name) in enumerate(result.names):
        yield number, name, group, int(counts[number]), int(kept_out[number])
