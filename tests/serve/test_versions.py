"""Versions of a model: added unserved, promoted, rolled back; never half-written."""

import numpy as np
import onnx
import pytest

from mstkd_serve.calibration import Calibration
from mstkd_serve.contract import Preprocessing
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import GraphError, RepositoryError
from mstkd_serve.golden import GoldenRecord, golden_faces
from mstkd_serve.graph import build_served_graph, read_contract
from mstkd_serve.repository import (
    Target,
    Versions,
    add_version,
    build_repository,
    check_repository,
    promote,
    rollback,
    versions_of,
)
from mstkd_serve.repository.config import parameters_of, read_config


@pytest.fixture
def student(tmp_path, recogniser):
    """Make a student's served graph: by its seed, in one embedding space, calibrated or not."""

    def make(seed, space="common", threshold=None):
        out = tmp_path / f"student_{seed}_{space}_{threshold}.onnx"
        source = recogniser(tmp_path / "source.onnx", seed=seed)
        build_served_graph(source, out, preprocessing=Preprocessing(), embedding_space=space)
        if threshold is not None:
            model = onnx.load(out)
            pairs = {pair.key: pair.value for pair in model.metadata_props}
            calibration = Calibration(
                threshold=threshold,
                fmr=0.01,
                policy="pooled",
                group_fmr={},
                group_fnmr={},
                data="test",
                pairs=1,
                contract_id=read_contract(out).id,
            )
            onnx.helper.set_model_props(model, pairs | calibration.metadata())
            onnx.save(model, out)
        return out

    return make


@pytest.fixture
def repository(tmp_path, student):
    def make(first=None, verify=False):
        out = tmp_path / "models" / "repository"
        models = {"student": first or student(0)}
        build_repository(models, out, target=Target.PYTHON, verify=verify)
        return out

    return make


def parameters(repository):
    return parameters_of(read_config(repository / "student" / "config.pbtxt"))


def golden(repository, suffix=""):
    text = parameters(repository)[f"mstkd.golden{suffix}"]
    return GoldenRecord.from_metadata({"mstkd.golden": text}, source="test").embeddings


def test_a_new_version_waits_until_it_is_promoted_and_goes_back(repository, student):
    folder = repository()
    assert versions_of(folder, "student").served == (1,)
    second = student(1)
    assert add_version(folder, "student", second) == 2
    assert versions_of(folder, "student") == Versions(present=(1, 2), served=(1,))
    assert (folder / "student" / "2" / "model.py").is_file()
    check_repository(folder)
    expected = OnnxRuntimeEngine(second).run(golden_faces())
    np.testing.assert_allclose(golden(folder, "@2"), expected, atol=1e-5)
    np.testing.assert_array_equal(golden(folder), golden(folder, "@1"))

    assert promote(folder, "student", 2).served == (2,)
    np.testing.assert_array_equal(golden(folder), golden(folder, "@2"))
    check_repository(folder)
    assert rollback(folder, "student").served == (1,)
    np.testing.assert_array_equal(golden(folder), golden(folder, "@1"))
    assert rollback(folder, "student").served == (2,)
    check_repository(folder)


def test_two_versions_side_by_side(repository, student):
    folder = repository()
    add_version(folder, "student", student(1))
    assert promote(folder, "student", 2, beside=True).served == (1, 2)
    config = read_config(folder / "student" / "config.pbtxt")
    assert list(config.version_policy.specific.versions) == [1, 2]
    assert rollback(folder, "student").served == (1,)


def test_a_version_of_another_contract_is_refused_and_leaves_nothing(repository, student):
    folder = repository()
    before = (folder / "student" / "config.pbtxt").read_bytes()
    with pytest.raises(RepositoryError, match=r"contract .* is not that of 'student'"):
        add_version(folder, "student", student(1, space="other"))
    with pytest.raises(GraphError):
        add_version(folder, "student", folder / "missing.onnx")
    assert (folder / "student" / "config.pbtxt").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["repository"]
    assert {path.name for path in (folder / "student").iterdir()} == {"1", "config.pbtxt", "warmup"}


def test_each_version_keeps_its_own_calibration(repository, student):
    folder = repository(student(0, threshold=0.3))
    add_version(folder, "student", student(1, threshold=0.4))
    promote(folder, "student", 2)
    values = parameters(folder)
    assert '"threshold":0.3' in values["mstkd.calibration@1"]
    assert '"threshold":0.4' in values["mstkd.calibration@2"]
    assert '"threshold":0.4' in values["mstkd.calibration"]
    check_repository(folder)
    add_version(folder, "student", student(2))
    promote(folder, "student", 3)
    assert "mstkd.calibration" not in parameters(folder)
    check_repository(folder)


def test_verify_never_decides_by_another_versions_threshold(repository, student):
    folder = repository(student(0, threshold=0.3), verify=True)
    add_version(folder, "student", student(1, threshold=0.4))
    with pytest.raises(RepositoryError, match=r"version 1's threshold 0\.3; version 2 has 0\.4"):
        promote(folder, "student", 2)
    assert versions_of(folder, "student").served == (1,)
    add_version(folder, "student", student(2, threshold=0.3))
    assert promote(folder, "student", 3).served == (3,)


@pytest.mark.parametrize("model", ["nobody", "verify"])
def test_what_has_no_versions_is_refused(repository, student, model):
    folder = repository(verify=True)
    with pytest.raises(RepositoryError, match=r"no model 'nobody'|only students"):
        add_version(folder, model, student(1))


def test_a_version_that_is_not_there_is_refused(repository):
    folder = repository()
    with pytest.raises(RepositoryError, match="has no version 7; it has 1"):
        promote(folder, "student", 7)
    with pytest.raises(RepositoryError, match="no way back"):
        rollback(folder, "student")


def test_check_sees_a_served_version_that_went_away(repository, student):
    folder = repository()
    add_version(folder, "student", student(1))
    promote(folder, "student", 2)
    (folder / "student" / "2").rename(folder.parent / "gone")
    with pytest.raises(RepositoryError, match="serves version 2, which is not there"):
        check_repository(folder)
