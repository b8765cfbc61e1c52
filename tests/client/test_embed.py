"""What `FaceClient` sends to the server and makes of its answers."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import mstkd_client
from mstkd_client import Embeddings, FaceClient


def batch_sizes(triton):
    """Sizes of the requests, largest first: those in flight together arrive in any order."""
    return sorted((request.inputs[0].shape[0] for request in triton.requests), reverse=True)


def test_constructing_and_closing_contacts_nobody(triton):
    client = FaceClient(triton.url)
    client.close()
    client.close()
    assert triton.calls == []


def test_constructing_and_closing_contacts_nobody_with_asyncio(triton):
    async def twice():
        client = mstkd_client.AsyncFaceClient(triton.url)
        await client.close()
        await client.close()

    asyncio.run(twice())
    assert triton.calls == []


def test_a_closed_client_says_so(client, triton, faces):
    client.info()
    client.close()
    with pytest.raises(mstkd_client.ClientClosed, match="closed"):
        client.embed(faces[0])
    with pytest.raises(mstkd_client.ClientClosed, match="closed"):
        client.health()


def test_info_is_what_the_server_says_and_read_once(client, triton):
    info = client.info()
    assert info == client.info()
    assert info.model_name == "student"
    assert info.model_versions == ("1",)
    assert info.embedding_dim == 4
    assert info.max_batch_size == 8
    assert info.contract_id == triton.contract_id
    assert info.contract["alignment"] == "arcface-112"
    assert info.server_version == "2.51.0"
    assert sorted(triton.calls) == ["ModelConfig", "ModelMetadata", "ServerMetadata"]


def test_threads_share_one_reading_of_the_model(triton, faces):
    start = threading.Barrier(4)

    def embed(face):
        start.wait()
        return np.asarray(client.embed(face))

    with FaceClient(triton.url) as client, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(embed, faces[:4]))
    np.testing.assert_array_equal(np.concatenate(answers), triton.embed(faces[:4]))
    assert triton.calls.count("ModelConfig") == 1


def test_a_single_face_is_one_row(client, triton, faces):
    embeddings = client.embed(faces[0])
    assert embeddings.vectors.shape == (1, 4)
    assert embeddings.vectors.dtype == np.float32
    assert (embeddings.contract_id, embeddings.model_name, embeddings.model_version) == (
        triton.contract_id,
        "student",
        "1",
    )


def test_faces_travel_as_raw_uint8(client, triton, faces):
    client.embed(faces[:2])
    (request,) = triton.requests
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == (
        "faces",
        "UINT8",
        [2, 112, 112, 3],
    )
    assert list(request.raw_input_contents) == [faces[:2].tobytes()]
    assert [output.name for output in request.outputs] == ["embedding"]


@pytest.mark.parametrize(("limit", "sizes"), [(8, [8, 8, 4]), (1, [1] * 20), (32, [20])])
def test_chunks_keep_the_servers_limit_and_the_order(client, triton, faces, limit, sizes):
    triton.max_batch_size = limit
    embeddings = client.embed(faces)
    np.testing.assert_array_equal(np.asarray(embeddings), triton.embed(faces))
    assert batch_sizes(triton) == sizes


@pytest.mark.parametrize(("first_dimension", "sizes"), [(-1, [20]), (1, [1] * 20)])
def test_a_model_without_batching_sets_the_chunks_by_its_shape(
    client, triton, faces, first_dimension, sizes
):
    triton.max_batch_size = 0
    triton.input = ("faces", "UINT8", [first_dimension, 112, 112, 3])
    np.testing.assert_array_equal(np.asarray(client.embed(faces)), triton.embed(faces))
    assert batch_sizes(triton) == sizes


def test_an_iterable_is_read_chunk_by_chunk(connect, triton, faces):
    triton.max_batch_size = 2
    read = []

    def six():
        for index in range(6):
            read.append((index, len(triton.requests)))
            yield faces[index]

    with connect(triton.url, in_flight=1) as client:
        client.embed(six())
    assert read == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]


def test_every_kind_of_input_gives_the_same_embedding(client, faces, tmp_path):
    face = faces[0]
    path = tmp_path / "face.png"
    Image.fromarray(face).save(path)
    data = path.read_bytes()
    mix = [face, str(path), path, data, bytearray(data), memoryview(data), Image.fromarray(face)]
    mix.append(faces[:2])
    rows = np.asarray(client.embed(mix))
    assert len(rows) == 9
    np.testing.assert_array_equal(rows[:8], np.repeat(rows[:1], 8, axis=0))
    np.testing.assert_array_equal(rows[8], np.asarray(client.embed(faces[1]))[0])


def test_verify_sends_both_faces_in_one_request(client, triton, faces):
    found = client.verify(faces[0], Image.fromarray(faces[1]))
    first, second = triton.embed(faces[:2]).astype(np.float64)
    assert found.score == pytest.approx(first @ second, abs=1e-6)
    assert found.contract_id == triton.contract_id
    assert (found.model_name, found.model_version) == ("student", "1")
    assert batch_sizes(triton) == [2]


def test_a_face_verifies_against_itself_with_one(client, faces):
    score = client.verify(faces[0], faces[0]).score
    assert isinstance(score, float)
    assert score == pytest.approx(1.0, abs=1e-6)
    assert score <= 1


def test_verify_wants_exactly_one_face_a_side(client, faces):
    with pytest.raises(mstkd_client.InvalidFace, match=r"the second face holds 2 faces"):
        client.verify(faces[0], faces[:2])
    with pytest.raises(mstkd_client.InvalidFace, match=r"the first face is a list"):
        client.verify([faces[0]], faces[1])


def test_the_wanted_version_is_asked_for(triton, faces, connect):
    triton.version = "3"
    with connect(triton.url, model_version="3") as client:
        assert client.embed(faces[0]).model_version == "3"
    assert triton.requests[0].model_version == "3"


def test_a_new_version_brings_its_own_contract(client, triton, faces):
    assert client.embed(faces[0]).contract_id == triton.contract_id
    triton.version = "2"
    first = triton.contract_id
    triton.set_contract(triton.parameters["mstkd.contract"] + " ")
    embeddings = client.embed(faces[0])
    assert (embeddings.model_version, embeddings.contract_id) == ("2", triton.contract_id)
    assert embeddings.contract_id != first
    assert client.info().model_versions == ("2",)


def test_a_version_that_changes_between_two_chunks_is_refused(client, triton, faces):
    def change_version():
        triton.version = str(len(triton.requests) + 1)

    triton.before_answer = change_version
    with pytest.raises(mstkd_client.ContractMismatch, match=r"version \d to \d"):
        client.embed(faces)


def test_embeddings_convert_to_numpy_and_show_no_vector(client, triton, faces):
    embeddings = client.embed(faces[:3])
    assert len(embeddings) == 3
    assert np.asarray(embeddings).dtype == np.float32
    assert np.asarray(embeddings, dtype=np.float64).dtype == np.float64
    assert np.shares_memory(np.asarray(embeddings), embeddings.vectors)
    with pytest.raises(ValueError, match="needs a copy"):
        embeddings.__array__(np.float64, copy=False)
    copy = np.array(embeddings)
    copy[0, 0] = 9
    assert embeddings.vectors[0, 0] != 9
    assert repr(embeddings) == (
        f"Embeddings(shape=(3, 4), contract_id='{triton.contract_id}', model_name='student', "
        "model_version='1')"
    )


def test_embeddings_cannot_be_changed(client, faces):
    embeddings = client.embed(faces[:3])
    with pytest.raises(ValueError, match="read-only"):
        embeddings.vectors[0, 0] = 0
    with pytest.raises(AttributeError):
        embeddings.contract_id = "other"


@pytest.mark.parametrize("wrong", [np.zeros(4, np.float32), np.zeros((1, 4))])
def test_embeddings_are_float32_of_two_dimensions(wrong):
    with pytest.raises(ValueError, match="float32"):
        Embeddings(wrong, "c", "student", "1")
