"""The decision that a calibrated model brings, and nothing where it is not calibrated."""

import json
import math

import pytest

from mstkd_client import ContractMismatch, FaceClient

CALIBRATION = {
    "threshold": 0.4,
    "fmr": 0.001,
    "policy": "worst_group",
    "group_fmr": {"a": 0.0009, "b": 0.0004},
    "group_fnmr": {"a": 0.1, "b": 0.2},
    "data": "pairs.csv",
    "pairs": 24000,
    "contract_id": "0123456789abcdef",
    "probability": {"slope": 10.0, "intercept": -4.0},
}


@pytest.fixture(autouse=True)
def _of_this_contract(triton):
    CALIBRATION["contract_id"] = triton.contract_id


def test_a_model_that_is_not_calibrated_gives_a_score_only(client, faces):
    found = client.verify(faces[0], faces[1])
    assert client.info().calibration is None
    assert found.accepted is found.threshold is found.fmr is found.probability is None


def test_a_calibrated_model_decides(triton, faces):
    triton.parameters["mstkd.calibration"] = json.dumps(CALIBRATION)
    with FaceClient(triton.url) as client:
        found = client.verify(faces[0], faces[0])
    assert found.score == pytest.approx(1)
    assert found.accepted is True
    assert (found.threshold, found.fmr, found.worst_group_fmr) == (0.4, 0.001, 0.0009)
    assert found.probability == pytest.approx(1 / (1 + math.exp(-6)))
    assert found.calibrated_on == "pairs.csv"


def test_the_threshold_itself_is_accepted_and_below_is_not(triton, faces):
    with FaceClient(triton.url) as client:
        score = client.verify(faces[0], faces[1]).score
    for threshold, accepted in ((score, True), (math.nextafter(score, 2), False)):
        triton.parameters["mstkd.calibration"] = json.dumps(CALIBRATION | {"threshold": threshold})
        with FaceClient(triton.url) as client:
            assert client.verify(faces[0], faces[1]).accepted is accepted


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", json.dumps(CALIBRATION | {"contract_id": "other"}),
     json.dumps(CALIBRATION | {"threshold": "high"})],
)  # fmt: skip
def test_a_damaged_calibration_is_refused(triton, faces, text):
    triton.parameters["mstkd.calibration"] = text
    with (
        FaceClient(triton.url) as client,
        pytest.raises(ContractMismatch, match="carries a calibration that cannot be used"),
    ):
        client.verify(faces[0], faces[1])
