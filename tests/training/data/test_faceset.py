import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mstkd_serve.errors import DataError
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.pairs import make_pairs


def make(groups=(0, 0, 0, 1, 1, 1), identities=(5, 5, 7, 9, 9, 8), names=("a", "b"), **changes):
    values = {
        "images": np.zeros((len(groups), 112, 112, 3), np.uint8),
        "identities": np.array(identities, np.int64),
        "groups": np.array(groups, np.int64),
        "group_names": names,
    }
    return FaceSet(**values | changes)


def test_labels_are_contiguous_and_groups_can_be_selected():
    faces = make()
    np.testing.assert_array_equal(faces.class_labels(), [0, 0, 1, 3, 3, 2])
    assert faces.identity_count == 4
    rows = faces.group_rows("b")
    np.testing.assert_array_equal(rows, [3, 4, 5])
    np.testing.assert_array_equal(faces.class_labels(rows), [1, 1, 0])
    with pytest.raises(DataError, match="'c' is not among a, b"):
        faces.group_rows("c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 112, 112, 3), np.float32)}, "uint8 RGB"),
        ({"images": np.zeros((6, 3, 112, 112), np.uint8)}, r"\(N, 112, 112, 3\)"),
        ({"identities": (1, 2)}, "one identity and one group"),
        ({"identities": (5, 5, 9, 9, 9, 8)}, "identity 9 is in two groups"),
        ({"names": ("a", "b", "c")}, "'c' has 0 images"),
        ({"groups": (0, 0, 0, 0, 0, 1), "identities": (1, 1, 1, 1, 1, 2)}, "'b' has 1 images"),
        ({"groups": (0, 0, 0, 1, 1, 2)}, "beyond the 2 group names"),
        ({"names": ("a", "a")}, "repeat"),
    ],
)
def test_unusable_sets_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes)


def many(seed: int) -> FaceSet:
    identities = np.repeat(np.arange(12), 4)
    return make(groups=identities // 6, identities=identities)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 60))
def test_pairs_are_what_they_say(seed, genuine, impostor):
    faces = many(seed)
    pairs = make_pairs(faces, genuine, impostor, seed)
    assert len(pairs.genuine) == 2 * (genuine + impostor)
    same = faces.identities[pairs.first] == faces.identities[pairs.second]
    np.testing.assert_array_equal(same, pairs.genuine)
    for index in (pairs.first, pairs.second):
        np.testing.assert_array_equal(faces.groups[index], pairs.groups)
    assert (pairs.first != pairs.second).all()
    couples = np.sort(np.stack([pairs.first, pairs.second]), axis=0)
    assert len(np.unique(couples, axis=1)[0]) == len(pairs.first)
    again = make_pairs(faces, genuine, impostor, seed)
    np.testing.assert_array_equal(again.first, pairs.first)


def test_too_few_pairs_are_named():
    with pytest.raises(DataError, match="'a' has 36 genuine pairs, 37 are wanted"):
        make_pairs(many(0), 37, 1, 0)
