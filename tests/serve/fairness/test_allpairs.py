import math

import numpy as np
import pytest

from mstkd_serve.errors import DataError
from mstkd_serve.fairness import Metrics, calibrate, evaluate, evaluate_all_pairs, make_scores
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


def test_all_pairs_give_the_metrics_of_their_scores(tmp_path):
    rng = np.random.default_rng(0)
    names = np.array([f"p{index}" for index in np.repeat(np.arange(60), 4)])
    centres = rng.normal(size=(60, 16))
    embeddings = unit(np.repeat(centres, 4, axis=0) + rng.normal(size=(240, 16)))
    groups = np.where(np.arange(240) < 120, "a", "b")
    found = evaluate_all_pairs(embeddings, names, groups, source="faces")
    scored = {name: all_pair_scores(embeddings[groups == name], np.unique(
        names[groups == name], return_inverse=True)[1]) for name in "ab"}  # fmt: skip
    listed = evaluate(
        make_scores(
            [n for n, s in scored.items() for _ in range(len(s.genuine) + len(s.impostor))],
            [k for s in scored.values() for k in [1] * len(s.genuine) + [0] * len(s.impostor)],
            np.concatenate([part for s in scored.values() for part in (s.genuine, s.impostor)]),
        )
    )
    assert found.data.identities == 60
    assert {"uneven_mix"} <= {caution.code for caution in found.warnings}
    skip = {"data", "groups", "warnings"}
    assert found.model_dump(exclude=skip) == listed.model_dump(exclude=skip)
    for name in "ab":
        assert found.groups[name].tar_at_far == listed.groups[name].tar_at_far
        assert found.groups[name].eer == listed.groups[name].eer
    found.save(tmp_path / "metrics.json")
    calibrated = calibrate(Metrics.load(tmp_path / "metrics.json"), "id", 1e-2)
    assert max(calibrated.group_fmr.values()) <= 1e-2


def test_all_pairs_report_identities_of_two_groups_and_name_a_poor_group():
    embeddings = unit(np.random.default_rng(0).normal(size=(8, 4)))
    found = evaluate_all_pairs(
        embeddings, np.array([1, 1, 2, 2, 1, 1, 3, 3]), ["a"] * 4 + ["b"] * 4
    )
    (caution,) = [c for c in found.warnings if c.code == "identity_in_two_groups"]
    assert "1 (a, b)" in caution.message
    with pytest.raises(DataError, match="group 'b': 4 faces of 4 identities give 0 genuine"):
        evaluate_all_pairs(embeddings, np.array([1, 1, 2, 2, 3, 4, 5, 6]), ["a"] * 4 + ["b"] * 4)
    with pytest.raises(DataError, match="one identity and one group"):
        evaluate_all_pairs(embeddings, np.arange(8), ["a"] * 7)
