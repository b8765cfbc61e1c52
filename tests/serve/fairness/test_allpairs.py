import math

import numpy as np
import pytest

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.allpairs import all_pair_scores
from mstkd_serve.fairness.rates import tar_at_far


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("count", [40, 1024, 1500])
def test_blocks_give_exactly_every_pair(count):
    rng = np.random.default_rng(0)
    embeddings = unit(rng.normal(size=(count, 8)))
    identities = rng.integers(0, count // 4, count)
    found = all_pair_scores(embeddings, identities)
    upper, lower = np.triu_indices(count, 1)
    scores = np.einsum("pd,pd->p", embeddings[upper], embeddings[lower])
    same = identities[upper] == identities[lower]
    np.testing.assert_allclose(found.genuine, np.sort(scores[same]), atol=1e-6)
    np.testing.assert_allclose(found.impostor, np.sort(scores[~same]), atol=1e-6)
    assert len(found.genuine) + len(found.impostor) == math.comb(count, 2)


def test_all_pairs_support_lower_rates_than_lists():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(300, 32))
    identities = np.repeat(np.arange(300), 5)
    found = all_pair_scores(unit(centres[identities] + rng.normal(size=(1500, 32))), identities)
    assert len(found.impostor) > 1_000_000
    assert tar_at_far(found, 1e-5).supported
    assert found.fmr(tar_at_far(found, 1e-5).threshold) <= 1e-5


@pytest.mark.parametrize(
    ("embeddings", "identities", "message"),
    [
        (np.eye(3, dtype=np.float32), [0, 1], "one identity for each"),
        (2 * np.eye(3, dtype=np.float32), [0, 0, 1], "norm 2"),
        (np.eye(3, dtype=np.float32), [0, 1, 2], "0 genuine"),
        (np.eye(3, dtype=np.float32), [0, 0, 0], "0 impostor"),
    ],
)
def test_unusable_embeddings_are_refused(embeddings, identities, message):
    with pytest.raises(DataError, match=message):
        all_pair_scores(embeddings, np.array(identities))
