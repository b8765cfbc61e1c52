"""A face set of rendered faces."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mstkd_serve.errors import DataError
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.identity import GROUP_DISTRIBUTIONS, sample_identities
from mstkd_training.data.nuisance import sample_nuisance
from mstkd_training.data.renderer import SIDE, render


def render_faceset(
    group_names: Sequence[str] = tuple(GROUP_DISTRIBUTIONS),
    *,
    identities_per_group: int,
    images_per_identity: int,
    seed: int,
    nuisance_strength: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> FaceSet:
    """Render identities of several groups; equal arguments give equal pixels.

    Args:
        group_names: Keys of `GROUP_DISTRIBUTIONS`.
        identities_per_group: At least 1.
        images_per_identity: At least 1.
        seed: Non-negative; other seeds give other identities.
        nuisance_strength: See `sample_nuisance`.
        progress: Called with the number of faces that became ready.

    Raises:
        DataError: A group is unknown, or a count or the seed is too small.
    """
    if min(identities_per_group, images_per_identity) < 1 or seed < 0:
        raise DataError(
            f"identities_per_group {identities_per_group}, images_per_identity "
            f"{images_per_identity}, seed {seed}: counts must be 1 or more, the seed 0 or more."
        )
    people = [sample_identities(name, identities_per_group, seed) for name in group_names]
    jobs = [(group, index) for group in range(len(people)) for index in range(len(people[group]))]
    images = np.empty((len(jobs) * images_per_identity, SIDE, SIDE, 3), np.uint8)

    def draw(job: int) -> int:
        group, index = jobs[job]
        # Seeds of their own, so that one identity's pictures do not depend on the others.
        picture_seed = int(np.random.SeedSequence([seed, group, index]).generate_state(1)[0])
        rows = np.full(images_per_identity, index)
        nuisance = sample_nuisance(images_per_identity, picture_seed, nuisance_strength)
        start = job * images_per_identity
        images[start : start + images_per_identity] = render(
            people[group][rows], nuisance, picture_seed
        )
        return images_per_identity

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for count in pool.map(draw, range(len(jobs))):
            if progress is not None:
                progress(count)
    groups = np.array([group for group, _ in jobs], np.int64)
    return FaceSet(
        images=images,
        identities=np.repeat(np.arange(len(jobs), dtype=np.int64), images_per_identity),
        groups=np.repeat(groups, images_per_identity),
        group_names=tuple(group_names),
    )
