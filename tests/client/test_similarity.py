import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstkd_client import ContractMismatch, Embeddings, InvalidFace, similarity


def embeddings(rows, contract_id="a"):
    return Embeddings(np.asarray(rows, np.float32), contract_id, "student", "1")


def test_rows_are_compared_by_angle_whatever_their_length():
    first = embeddings([[1, 0], [1, 0], [1, 0], [3, 0]])
    second = embeddings([[1, 0], [0, 1], [-1, 0], [5, 5]])
    scores = similarity(first, second)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [1, 0, -1, np.sqrt(0.5)], atol=1e-7)


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=3).filter(any), st.integers(0, 99))
def test_scores_stay_within_the_range_and_do_not_depend_on_the_order(row, seed):
    first = embeddings([row])
    second = embeddings(np.random.default_rng(seed).normal(size=(1, 3)))
    (score,) = similarity(first, second)
    assert -1 <= score <= 1
    assert score == similarity(second, first)[0]
    assert similarity(first, first)[0] == pytest.approx(1)


def test_different_contracts_are_not_comparable():
    with pytest.raises(ContractMismatch, match=r"aaa.*bbb"):
        similarity(embeddings([[1, 0]], "aaa"), embeddings([[1, 0]], "bbb"))


@pytest.mark.parametrize("other", [[[1, 0], [1, 0]], [[1, 0, 0]]])
def test_different_shapes_cannot_be_paired(other):
    with pytest.raises(InvalidFace, match="paired"):
        similarity(embeddings([[1, 0]]), embeddings(other))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_named(bad):
    with pytest.raises(InvalidFace, match="row 1 of the second"):
        similarity(embeddings([[1, 0], [1, 0]]), embeddings([[1, 0], [bad, 0]]))
