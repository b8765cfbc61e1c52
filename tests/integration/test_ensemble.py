"""Every model of a repository on a real tritonserver: teachers, adaptor, ensemble, verify."""

import time

import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http

from mstkd_serve.calibration import Calibration
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import GraphError, RepositoryError
from mstkd_serve.graph import read_adaptor
from mstkd_serve.repository import Projection, ServingOptions, Target, build_repository
from mstkd_serve.triton import Endpoint, Ports, TritonServer, examine, locate
from mstkd_training.artifact import Artifact
from mstkd_training.export import export, reference_embeddings
from mstkd_training.export_adaptor import export_adaptor
from mstkd_training.export_network import load_network
from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe_file import load_recipe
from mstkd_training.test_pairs import load_test_set

pytestmark = pytest.mark.triton

GROUPS = ("Asian", "African", "Caucasian", "Indian")
TEACHERS = [f"teacher_{group.lower()}" for group in GROUPS]
NAMES = ["student", *TEACHERS, "adaptor", "ensemble", "verify", "verify_ensemble"]
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with four tiny teachers, their adaptor and a student."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = load_recipe("smoke", [f"data.groups=[{','.join(GROUPS)}]"])
    run_pipeline(recipe, folder, SilentReporter())
    return folder


def calibrate(path):
    model = onnx.load(path)
    pairs = {pair.key: pair.value for pair in model.metadata_props}
    calibration = Calibration(
        threshold=THRESHOLD,
        fmr=0.01,
        policy="worst_group",
        group_fmr={"Asian": 0.01},
        group_fnmr={"Asian": 0.1},
        data="test",
        pairs=10,
        contract_id=pairs["mstkd.contract_id"],
    )
    onnx.helper.set_model_props(model, pairs | calibration.metadata())
    onnx.save(model, path)


@pytest.fixture(scope="module")
def exported(trained):
    """The ONNX file of each of them, the student's calibrated; and the one-graph export."""
    files = {name: trained / f"{name}.onnx" for name in ("student", *TEACHERS)}
    for name, path in files.items():
        export(trained / name, path)
    files["adaptor"] = trained / "adaptor.onnx"
    export_adaptor(trained / "adaptor", files["adaptor"])
    files["projection"] = trained / "projection.onnx"
    export(trained / "adaptor", files["projection"])
    for name in ("student", "adaptor"):
        calibrate(files[name])
    return files


@pytest.fixture(scope="module")
def faces(trained):
    return load_test_set(trained).faces.images[:12]


def build(exported, out, *, as_steps, order=TEACHERS, **options):
    return build_repository(
        {"student": exported["student"]},
        out,
        target=Target.PYTHON,
        options=ServingOptions(**options),
        projection=Projection([exported[name] for name in order], exported["adaptor"], as_steps),
        verify=True,
    )


@pytest.fixture(scope="module", params=[False, True], ids=["graph", "steps"])
def running(request, exported, tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository") / "models"
    build(exported, repository, as_steps=request.param, weights_license="CC BY-NC 4.0")
    with TritonServer(locate(), repository, Ports(0, 0, 0)) as server:
        server.wait_ready(120)
        yield server


def ask(client, module, model, inputs, outputs):
    """Call a model by tritonclient alone, over gRPC or HTTP."""
    tensors = []
    for name, array in inputs.items():
        kind = "UINT8" if array.dtype == np.uint8 else "FP32"
        tensors.append(module.InferInput(name, list(array.shape), kind))
        tensors[-1].set_data_from_numpy(array)
    wanted = [module.InferRequestedOutput(name) for name in outputs]
    answer = client.infer(model, tensors, outputs=wanted)
    return [answer.as_numpy(name) for name in outputs]


@pytest.fixture(params=["grpc", "http"])
def plain(request, running):
    """A call by a client that knows nothing of us."""
    module = getattr(tritonclient, request.param)
    url = running.url if request.param == "grpc" else f"127.0.0.1:{running.ports.http}"
    with module.InferenceServerClient(url) as client:
        yield lambda *arguments: ask(client, module, *arguments)


def rows_cosine(first, second):
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / lengths


def test_every_model_is_ready_and_examined(running):
    states = {name: state for name, _, state in running.models()}
    assert set(NAMES) <= set(states)
    assert set(states.values()) == {"READY"}
    findings = examine(Endpoint(running.url), NAMES)
    assert [finding.problem for finding in findings] == [""] * len(findings)


def test_the_ensemble_is_the_torch_projection_and_the_one_graph_export(
    plain, trained, exported, faces
):
    (served,) = plain("ensemble", {"faces": faces}, ["embedding"])
    artifact = Artifact.open(trained / "adaptor")
    network = load_network(artifact)
    expected = reference_embeddings(network, faces, artifact.manifest.preprocessing)
    assert rows_cosine(served, expected).min() >= 0.9999
    one_graph = OnnxRuntimeEngine(exported["projection"]).run(np.ascontiguousarray(faces))
    assert rows_cosine(served, one_graph).min() >= 0.9999


def test_the_ensemble_tells_each_teachers_embedding_and_their_agreement(plain, trained, faces):
    parts = [f"embedding_{group.lower()}" for group in GROUPS]
    agreement, *embeddings = plain("ensemble", {"faces": faces}, ["agreement", *parts])
    for name, found in zip(TEACHERS, embeddings, strict=True):
        (alone,) = plain(name, {"faces": faces}, ["embedding"])
        np.testing.assert_allclose(found, alone, atol=1e-5)
    joint, again = plain(
        "adaptor", dict(zip(parts, embeddings, strict=True)), ["embedding", "agreement"]
    )
    np.testing.assert_allclose(again, agreement, atol=1e-5)
    single = []
    for index, part in enumerate(parts):
        inputs = {p: np.zeros_like(embeddings[i]) for i, p in enumerate(parts)}
        inputs[part] = embeddings[index]
        single.append(rows_cosine(plain("adaptor", inputs, ["embedding"])[0], joint))
    np.testing.assert_allclose(agreement[:, 0], np.mean(single, axis=0), atol=1e-4)
    assert agreement.shape == (len(faces), 1)


def test_verify_gives_cosine_and_calibrated_decision(plain, faces):
    sides = {"faces_a": faces, "faces_b": np.ascontiguousarray(faces[::-1])}
    for model, embedder in (("verify", "student"), ("verify_ensemble", "ensemble")):
        (embeddings,) = plain(embedder, {"faces": faces}, ["embedding"])
        (score,) = plain(model, sides, ["score"])
        np.testing.assert_allclose(
            score[:, 0], rows_cosine(embeddings, embeddings[::-1]), atol=1e-5
        )
        score, accepted, threshold = plain(model, sides, ["score", "accepted", "threshold"])
        np.testing.assert_array_equal(accepted, score >= np.float32(THRESHOLD))
        assert accepted.dtype == bool
        if model == "verify":
            assert set(accepted[:, 0]) == {True, False}
        np.testing.assert_array_equal(threshold, np.full_like(score, THRESHOLD))


def successes(client):
    statistics = client.get_inference_statistics("ensemble")
    return statistics["model_stats"][0]["inference_stats"]["success"]["count"]


def test_documented_names_and_statistics_are_there_for_plain_clients(running, faces):
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{running.ports.http}") as client:
        verify = client.get_model_metadata("verify_ensemble")
        assert [tensor["name"] for tensor in verify["inputs"]] == ["faces_a", "faces_b"]
        config = client.get_model_config("student")
        assert config["parameters"]["mstkd.weights_license"]["string_value"] == "CC BY-NC 4.0"
        assert config["parameters"]["mstkd.kind"]["string_value"] == "embedding"
        index = {entry["name"] for entry in client.get_model_repository_index()}
        assert set(NAMES) <= index
        before = successes(client)
        ask(client, tritonclient.http, "ensemble", {"faces": faces}, ["embedding"])
        deadline = time.monotonic() + 10  # Triton counts an ensemble's request after its answer.
        while successes(client) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert successes(client) == before + 1


def test_our_client_takes_the_ensemble_by_its_mode(connect, running, exported, faces):
    with connect(running.url, mode="ensemble") as client:
        embeddings = client.embed(faces)
        assert embeddings.model_name == "ensemble"
        assert embeddings.contract_id == read_adaptor(exported["adaptor"]).contract.id
        assert client.info().calibration.threshold == THRESHOLD
        expected = OnnxRuntimeEngine(exported["projection"]).run(np.ascontiguousarray(faces))
        assert rows_cosine(embeddings.vectors, expected).min() >= 0.9999


@pytest.mark.parametrize("as_steps", [False, True])
def test_teachers_in_another_order_are_refused(exported, tmp_path, as_steps):
    swapped = [TEACHERS[1], TEACHERS[0], *TEACHERS[2:]]
    wanted = "in the order " + ", ".join(TEACHERS)
    with pytest.raises(GraphError, match=wanted):
        build(exported, tmp_path / "out", as_steps=as_steps, order=swapped)
    with pytest.raises(GraphError, match="a stranger"):
        build(exported, tmp_path / "out", as_steps=as_steps, order=[*TEACHERS[:3], "student"])
    with pytest.raises(RepositoryError, match="has the 4 teachers"):
        build(exported, tmp_path / "out", as_steps=as_steps, order=TEACHERS[:3])
    with pytest.raises(RepositoryError, match="as two --teacher"):
        build(exported, tmp_path / "out", as_steps=as_steps, order=[TEACHERS[0]] * 4)
    assert list(tmp_path.iterdir()) == []


def test_teachers_that_see_faces_otherwise_are_refused(trained, exported, tmp_path):
    flipped = tmp_path / "flipped.onnx"
    export(trained / TEACHERS[0], flipped, flip=True)
    files = exported | {TEACHERS[0]: flipped}
    with pytest.raises(GraphError, match="sees faces otherwise"):
        build(files, tmp_path / "out", as_steps=True)


def test_a_student_is_no_adaptor(exported, tmp_path):
    files = exported | {"adaptor": exported["student"]}
    with pytest.raises(GraphError, match="not an adaptor"):
        build(files, tmp_path / "out", as_steps=True)
