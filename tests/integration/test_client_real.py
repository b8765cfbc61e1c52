"""The client against a real tritonserver with a real model."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from mstkd_client import FaceClient, ModelNotReady, ServerUnavailable, similarity
from mstkd_client.cli import main

pytestmark = pytest.mark.triton

TOLERANCE = 1e-5


@pytest.fixture
def client(served):
    with FaceClient(served.url, timeout=60) as client:
        yield client


@pytest.fixture
def many(client):
    """More faces than go into one request, uint8 `(n, 112, 112, 3)`; blocks of colour."""
    count = 2 * client.info().max_batch_size + 3
    blocks = np.random.default_rng(11).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(28, axis=1).repeat(28, axis=2)


@pytest.fixture
def files(many, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, face in zip(paths, many, strict=False):
        Image.fromarray(face).save(path)
    return paths


def test_embeddings_are_those_of_the_served_onnx_in_order(client, served, many):
    assert 0 < client.info().max_batch_size < len(many)
    session = onnxruntime.InferenceSession(served.onnx, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["embedding"], {"faces": many})
    embeddings = client.embed(many)
    np.testing.assert_allclose(np.asarray(embeddings), expected, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, atol=1e-4)
    distances = np.abs(expected[:, None] - expected).max(axis=2) + np.eye(len(many))
    assert distances.min() > 10 * TOLERANCE, "faces too alike to show the order"


def test_every_kind_of_input_gives_the_same_embedding(client, many, files):
    face, path = many[0], files[0]
    single = client.embed(face)
    assert single.vectors.shape == (1, client.info().embedding_dim)
    kinds = [face, face[None], str(path), path, path.read_bytes(), Image.open(path)]
    for kind in [*kinds, [face]]:
        np.testing.assert_allclose(
            client.embed(kind).vectors, single.vectors, atol=TOLERANCE, err_msg=str(type(kind))
        )
    mixed = client.embed(kinds)
    np.testing.assert_allclose(mixed.vectors, np.repeat(single.vectors, 6, 0), atol=TOLERANCE)


def test_threads_get_their_own_answers(client, many):
    expected = client.embed(many).vectors
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda face: client.embed(face).vectors[0], many))
    np.testing.assert_allclose(np.stack(rows), expected, atol=TOLERANCE)


def test_verify_is_the_cosine_of_the_embeddings(client, many):
    found = client.verify(many[0], many[1])
    (expected,) = similarity(client.embed(many[0]), client.embed(many[1]))
    assert found.score == pytest.approx(float(expected), abs=TOLERANCE)
    assert client.verify(many[0], many[0]).score == pytest.approx(1, abs=TOLERANCE)
    assert found.contract_id == client.info().contract_id
    assert (found.model_name, found.model_version) == ("student", "1")


def test_info_is_the_contract_that_was_built(client, served):
    info = client.info()
    metadata = onnxruntime.InferenceSession(
        served.onnx, providers=["CPUExecutionProvider"]
    ).get_modelmeta()
    assert info.contract_id == metadata.custom_metadata_map["mstkd.contract_id"]
    assert info.contract == json.loads(metadata.custom_metadata_map["mstkd.contract"])
    assert info.embedding_dim == info.contract["embedding_dim"]
    assert info.model_versions == ("1",)
    assert info.server_version


def test_health_of_a_served_and_of_an_unknown_model(client, served):
    health = client.health()
    assert (health.server_live, health.server_ready, health.model_ready) == (True, True, True)
    with FaceClient(served.url, model_name="teacher_none") as other:
        health = other.health()
    assert (health.server_live, health.model_ready) == (True, False)


def test_an_unknown_model_is_named_with_those_there_are(served, many):
    with (
        FaceClient(served.url, model_name="teacher_none") as client,
        pytest.raises(ModelNotReady, match=r"'teacher_none'.*student"),
    ):
        client.embed(many[0])
    with (
        FaceClient(served.url, model_version="9") as client,
        pytest.raises(ModelNotReady, match="version 9"),
    ):
        client.embed(many[0])


def test_a_dead_port_is_unavailable_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.monotonic()
    with (
        FaceClient(f"127.0.0.1:{port}") as client,
        pytest.raises(ServerUnavailable, match=f":{port}"),
    ):
        client.info()
    assert time.monotonic() - start < 5


def test_the_command_line_end_to_end(served, client, files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MSTKD_URL", served.url)
    names, out = [str(path) for path in files], tmp_path / "faces.npz"

    assert main(["embed", *names, "--out", str(out)]) == 0
    with np.load(out, allow_pickle=False) as written:
        np.testing.assert_allclose(written["vectors"], client.embed(names).vectors, atol=TOLERANCE)
        assert written["names"].tolist() == names
        assert str(written["contract_id"]) == client.info().contract_id
    assert main(["embed", *names, "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err

    assert main(["verify", *names[:2], "--json"]) == 0
    score = json.loads(capsys.readouterr().out)["score"]
    assert score == pytest.approx(client.verify(*names[:2]).score, abs=TOLERANCE)

    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contract_id"] == client.info().contract_id

    assert main(["info", "--model", "teacher_none"]) == 2
    error = capsys.readouterr().err
    assert "teacher_none" in error
    assert error.count("\n") == 1
