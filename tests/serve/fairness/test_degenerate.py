"""Input that has no honest figure: an error or a marked value, never a wrong number."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import ContractError, DataError
from mstkd_serve.fairness import (
    Metrics,
    calibrate,
    evaluate,
    fit_probability,
    make_scores,
    read_scores,
)
from mstkd_serve.fairness.calibrate import write_calibration
from mstkd_serve.fairness.gate import broken_limits, load_gate
from mstkd_serve.fairness.pair_lists import read_pair_list
from mstkd_serve.fairness.schema import Spread
from mstkd_serve.graph import build_served_graph

IDENTITIES = "group,genuine,score,first_identity,second_identity"
ACROSS = "group,genuine,score,second_group"
PERFECT = ("aabb" * 200, [1, 0] * 400, [0.9, 0.1] * 400)


def read(tmp_path: Path, header: str, *rows: str) -> Metrics:
    path = tmp_path / "scores.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return evaluate(read_scores(path), bootstrap=50)


def codes(metrics: Metrics) -> list[str]:
    return [caution.code for caution in metrics.warnings]


def test_rejecting_everybody_may_be_best():
    metrics = evaluate(make_scores("aaa", [1, 0, 0], [0.1, 0.2, 0.9]))
    assert metrics.summary.threshold > 0.9
    assert metrics.groups["a"].accuracy == pytest.approx(200 / 3)
    assert (metrics.groups["a"].fmr, metrics.groups["a"].fnmr) == (0, 1)


def test_equal_scores_have_no_d_prime_whatever_their_value():
    # 0.1 seven times over: means of different counts differ in the last bit.
    assert evaluate(make_scores("a" * 7, [1] * 3 + [0] * 4, [0.1] * 7)).groups["a"].d_prime is None


def test_no_error_is_no_certainty():
    metrics = evaluate(make_scores(*PERFECT), bootstrap=200)
    group = metrics.groups["a"]
    # Clopper and Pearson, no error in 200 and in 400 pairs.
    assert group.fmr_interval.high == pytest.approx(1 - 0.025 ** (1 / 200))
    assert group.fnmr_interval.high == pytest.approx(1 - 0.025 ** (1 / 200))
    assert group.accuracy_interval.low == pytest.approx(100 * 0.025 ** (1 / 400))
    assert (group.fmr_interval.low, group.accuracy_interval.high) == (0, 100)
    assert metrics.summary.accuracy_mean_interval is None
    assert metrics.summary.std_interval is None
    assert {"no_false_match", "no_false_non_match"} <= set(codes(metrics))
    for spread in (metrics.summary, metrics.summary.per_group_thresholds):
        assert spread.ser is spread.ir is spread.nist_fmr_max_geomean is None


def test_no_error_among_few_identities_says_less(tmp_path):
    # Ten people in 45 impostor and 90 genuine pairs: ten independent faces, not 45.
    rows = [f"a,0,0.1,{a},{b}" for a in range(10) for b in range(a)]
    rows += [f"a,1,0.9,{a},{a}" for a in range(10)] * 9
    interval = read(tmp_path, IDENTITIES, *rows).groups["a"].fmr_interval
    assert interval.high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_always_wrong_is_as_uncertain_as_never():
    scores = make_scores("a" * 40, [1, 0] * 20, [0.1, 0.9] * 20)
    metrics = evaluate(scores, threshold=0.5, bootstrap=50)
    assert metrics.groups["a"].fmr == 1
    assert metrics.groups["a"].fmr_interval.low == pytest.approx(0.025 ** (1 / 20))


def test_a_gate_trusts_no_rate_that_the_pairs_cannot_support(tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text(
        "groups.*.tar_at_far.1e-6.tar: {min: 0.5}\ngroups.a.tar_at_far.1e-1.tar: {min: 0.5}"
    )
    broken = broken_limits(load_gate(path), evaluate(make_scores(*PERFECT)))
    assert broken == [
        f"groups.{name}.tar_at_far.1e-6.tar has too few impostor pairs to be known" for name in "ab"
    ]


def test_pairs_without_a_group_are_refused(tmp_path):
    with pytest.raises(DataError, match="row 2 has no group"):
        read(tmp_path, "group,genuine,score", "a,1,0.9", ",0,0.1")
    table = {"group": ["a", None], "genuine": [1, 0], "score": [0.9, 0.1]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "s.parquet")
    with pytest.raises(DataError, match="row 2 has no group"):
        read_scores(tmp_path / "s.parquet")


def test_a_missing_score_in_parquet_is_named(tmp_path):
    table = {"group": ["a", "a"], "genuine": [True, False], "score": [0.9, None]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "s.parquet")
    with pytest.raises(DataError, match="row 2 has score None"):
        read_scores(tmp_path / "s.parquet")


def test_unnamed_identities_are_not_one_person(tmp_path):
    rows = ("a,1,0.9,p,", "a,0,0.1,p,q", "b,1,0.8,,", "b,0,0.2,,r")
    metrics = read(tmp_path, IDENTITIES, *rows)
    assert "identities_incomplete" in codes(metrics)
    assert "identity_in_two_groups" not in codes(metrics)
    assert metrics.data.identities is None


def test_labels_that_contradict_identities_are_reported(tmp_path):
    metrics = read(tmp_path, IDENTITIES, "a,1,0.9,p,q", "a,0,0.1,p,p", "a,1,0.9,q,q")
    (caution,) = [c for c in metrics.warnings if c.code == "labels_contradict_identities"]
    assert caution.message.startswith("2 pairs")
    assert caution.severity == "serious"


def test_genuine_pairs_across_groups_are_refused(tmp_path):
    rows = ("a,1,0.9,a", "a,0,0.1,a", "b,1,0.8,b", "b,0,0.1,b", "a,1,0.2,b")
    with pytest.raises(DataError, match=r"1 genuine pairs .* pair 4"):
        read(tmp_path, ACROSS, *rows)


def test_a_group_with_impostors_only_across_groups_is_named(tmp_path):
    rows = ("a,1,0.9,a", "a,0,0.1,b", "b,1,0.8,b", "b,0,0.1,b")
    with pytest.raises(DataError, match="impostor pairs of group 'a' are across"):
        read(tmp_path, ACROSS, *rows)
    metrics = read(tmp_path, ACROSS, *rows, "a,0,0.1,a")
    assert metrics.cross_group_fmr == {"a|b": 0}
    assert "few_cross_group" in codes(metrics)


def test_an_uneven_mix_of_pairs_and_other_folds_are_marked(tmp_path):
    rows = [
        f"{group},{int(index < genuine)},{0.9 - index / 100},{index % 3}"
        for group, genuine in (("a", 2), ("b", 5))
        for index in range(9)
    ]
    metrics = read(tmp_path, "group,genuine,score,fold", *rows)
    assert {"uneven_mix", "not_ten_folds"} <= set(codes(metrics))
    assert metrics.data.folds == "given"
    even = evaluate(make_scores(*PERFECT))
    assert not {"uneven_mix", "not_ten_folds"} & set(codes(even))
    assert even.data.folds == "contiguous"


def test_scores_too_large_to_square_are_refused():
    with pytest.raises(DataError, match="beyond 1e100"):
        make_scores("aa", [1, 0], [1e308, -1e308])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", b"\xff\xfe\x00", "not a readable list"),
        ("pairs.txt", b"\xff\xfe\x00", "not a readable list"),
        ("p.csv", b"genuine,group,first,second\n1,a,x.png\n", "line 2 has no second"),
        ("p.csv", b"genuine,group,first,second\n1,,x.png,y.png\n", "line 2 has no group"),
    ],
)
def test_broken_pair_lists_are_one_clear_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_pair_list(tmp_path / name)


def test_probability_survives_a_rare_kind_and_ignores_order():
    rng = np.random.default_rng(0)
    genuine = np.arange(300_000) < 12
    scores = rng.normal(genuine * 0.5, 0.1)
    order = rng.permutation(len(scores))
    one = fit_probability(make_scores(["a"] * len(scores), genuine, scores))
    other = fit_probability(make_scores(["a"] * len(scores), genuine[order], scores[order]))
    assert one == other
    assert one.slope > 0


def test_intervals_over_identities_ignore_the_order_of_pairs(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for index in range(200):
        first, second = rng.integers(0, 20, 2) if index % 2 else (index % 20,) * 2
        same = int(first == second)
        rows.append(f"a,{same},{rng.normal(0.5 * same, 0.3):.6f},{first},{second}")
    plain = read(tmp_path, IDENTITIES, *rows).groups["a"]
    rng.shuffle(rows)
    shuffled = read(tmp_path, IDENTITIES, *rows).groups["a"]
    assert plain.accuracy_interval == shuffled.accuracy_interval
    assert plain.fmr_interval == shuffled.fmr_interval


def test_thin_subgroups_are_marked_with_their_size(tmp_path):
    rows = [f"a,{index % 2},{0.1 + 0.8 * (index % 2)},{'mf'[index // 2 % 2]}" for index in range(8)]
    metrics = read(tmp_path, "group,genuine,score,subgroup", *rows, "a,1,0.9,")
    assert set(metrics.subgroups) == {"a/m", "a/f"}
    (caution,) = [c for c in metrics.warnings if c.code == "few_subgroup"]
    assert "a/m (2), a/f (2)" in caution.message


def test_no_figure_can_be_nan_or_infinite():
    spread = evaluate(make_scores(*PERFECT)).summary.per_group_thresholds.model_dump()
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValidationError, match="finite number"):
            Spread(**spread | {"ir": value})


def test_a_calibration_is_not_written_into_another_model(tmp_path, recogniser):
    model = tmp_path / "served.onnx"
    build_served_graph(recogniser(tmp_path / "s.onnx"), model, preprocessing=Preprocessing())
    before = model.read_bytes()
    calibration = calibrate(evaluate(make_scores(*PERFECT)), "feedfacefeedface", 1e-1)
    with pytest.raises(ContractError, match="belongs to feedfacefeedface"):
        write_calibration(model, calibration)
    assert model.read_bytes() == before
