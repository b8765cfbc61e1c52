import math

import numpy as np
import pytest

from mstkd_serve.calibration import CALIBRATION_KEY, Calibration
from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import ContractError, DataError
from mstkd_serve.fairness.calibrate import (
    calibrate,
    contract_of,
    fit_probability,
    write_calibration,
)
from mstkd_serve.fairness.evaluate import evaluate
from mstkd_serve.fairness.gate import broken_limits, load_gate
from mstkd_serve.fairness.schema import ModelDescription
from mstkd_serve.fairness.scores import Scores, make_scores
from mstkd_serve.graph import build_served_graph, read_metadata
from mstkd_serve.repository import Target, build_repository, check_repository
from mstkd_serve.repository.config import parameters_of, read_config


@pytest.fixture(scope="module")
def scores() -> Scores:
    rng = np.random.default_rng(0)
    genuine = np.arange(80_000) % 2 == 0
    group = np.where(np.arange(80_000) % 4 < 2, "a", "b")
    shift = np.where(group == "b", 0.1, 0.0)
    return make_scores(group, genuine, rng.normal(0.6 * genuine + shift, 0.12))


@pytest.fixture
def model(tmp_path, recogniser):
    out = tmp_path / "served.onnx"
    source = recogniser(tmp_path / "source.onnx")
    build_served_graph(source, out, preprocessing=Preprocessing())
    return out


def test_worst_group_keeps_the_rate_and_pooled_does_not(scores):
    metrics = evaluate(scores)
    worst = calibrate(metrics, "id", 1e-2)
    pooled = calibrate(metrics, "id", 1e-2, "pooled")
    assert max(worst.group_fmr.values()) <= 1e-2
    assert max(pooled.group_fmr.values()) > 1e-2
    assert worst.threshold > pooled.threshold
    impostors = ~scores.genuine
    assert (scores.score[impostors] >= pooled.threshold).mean() <= 1e-2


def test_unsupported_and_unknown_rates_are_refused(scores):
    metrics = evaluate(scores)
    with pytest.raises(DataError, match="20000 impostor pairs a group do not support"):
        calibrate(metrics, "id", 1e-4)
    assert calibrate(metrics, "id", 1e-4, allow_unsupported=True).fmr == 1e-4
    with pytest.raises(DataError, match=r"Evaluate again with --fmr 0\.02"):
        calibrate(metrics, "id", 0.02)
    stated = calibrate(evaluate(scores, fmr_targets=[0.02]), "id", 0.02)
    assert 0.01 < max(stated.group_fmr.values()) <= 0.02
    with pytest.raises(DataError, match="between 0 and 1"):
        evaluate(scores, fmr_targets=[0.0])


def test_probability_is_that_of_the_logistic_model(scores):
    found = fit_probability(scores)
    # Equal normals around 0.05 and 0.65 (over both groups): even odds half-way.
    middle = -found.intercept / found.slope
    assert middle == pytest.approx(0.35, abs=0.02)
    assert 1 / (1 + math.exp(-(found.slope * 0.8 + found.intercept))) > 0.99


def test_calibration_travels_from_metrics_to_the_triton_config(scores, model, tmp_path):
    contract_id = contract_of(model).id
    metrics = evaluate(scores, model=ModelDescription(contract_id=contract_id))
    calibration = calibrate(metrics, contract_id, 1e-2)
    write_calibration(model, calibration)
    build_repository({"student": model}, tmp_path / "repository", target=Target.PYTHON)
    check_repository(tmp_path / "repository")
    parameters = parameters_of(read_config(tmp_path / "repository" / "student" / "config.pbtxt"))
    back = Calibration.from_metadata(parameters, contract_id=contract_id, source="config")
    assert back == calibration


def test_metrics_of_another_model_are_refused(scores, model):
    metrics = evaluate(scores, model=ModelDescription(contract_id="feedfacefeedface"))
    with pytest.raises(ContractError, match="measured on a model with contract feedface"):
        calibrate(metrics, contract_of(model).id, 1e-2)


def test_a_new_graph_does_not_inherit_the_calibration(scores, tmp_path, recogniser):
    import onnx

    source = recogniser(tmp_path / "source.onnx")
    model = onnx.load(source)
    onnx.helper.set_model_props(model, {CALIBRATION_KEY: "{}"})
    onnx.save(model, source)
    build_served_graph(source, tmp_path / "served.onnx", preprocessing=Preprocessing())
    assert CALIBRATION_KEY not in read_metadata(tmp_path / "served.onnx")


@pytest.mark.parametrize("text", ["{", "{}"])
def test_damaged_calibration_is_a_typed_error(text):
    with pytest.raises(ContractError, match="malformed"):
        Calibration.from_metadata({CALIBRATION_KEY: text}, contract_id="x", source="m.onnx")


def test_gate_names_each_broken_limit(scores, tmp_path):
    metrics = evaluate(scores)
    path = tmp_path / "gate.yaml"
    path.write_text(
        "global.std: {max: 0.001}\n"
        "groups.*.accuracy: {min: 50}\n"
        "groups.a.tar_at_far.1e-2.tar: {min: 0.999999}\n"
    )
    broken = broken_limits(load_gate(path), metrics)
    assert len(broken) == 2
    assert broken[0].startswith("global.std is ")
    assert broken[1].startswith("groups.a.tar_at_far.1e-2.tar is ")
    path.write_text("global.ser: {max: 5}")
    perfect = evaluate(make_scores("aabb", [1, 0] * 2, [0.9, 0.1, 0.9, 0.95]), threshold=0.5)
    assert broken_limits(load_gate(path), perfect) == ["global.ser is undefined"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "valid dict"), ("{}", "at least one"), ("a: {}", "min or max"), ("a: {mx: 1}", "mx"),
     ("a: [", "cannot be read")],
)  # fmt: skip
def test_unusable_gates_are_refused(tmp_path, content, message):
    path = tmp_path / "gate.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_gate(path)


def test_a_gate_on_nothing_is_refused(scores, tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text("global.kindness: {min: 1}")
    with pytest.raises(DataError, match="kindness' is no figure"):
        broken_limits(load_gate(path), evaluate(scores))
