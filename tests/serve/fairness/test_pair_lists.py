import numpy as np
import pytest
from PIL import Image

from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import ContractError, DataError, ServerError
from mstkd_serve.fairness.cautions import image_leaks
from mstkd_serve.fairness.leaks import find_leaks
from mstkd_serve.fairness.pair_lists import read_pair_list
from mstkd_serve.fairness.pair_scores import model_embedder, score_pairs, url_embedder
from mstkd_serve.graph import build_served_graph


def save(path, face) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(face).save(path)


@pytest.fixture
def csv_list(tmp_path, faces):
    for index, face in enumerate(faces[:4]):
        save(tmp_path / "images" / f"{index}.png", face)
    path = tmp_path / "pairs.csv"
    path.write_text(
        "first,second,group,genuine,first_identity,second_identity\n"
        "images/0.png,images/1.png,a,1,p,p\n"
        "images/0.png,images/2.png,a,0,p,q\n"
        "images/2.png,images/3.png,b,1,q,q\n"
        "images/1.png,images/3.png,b,0,p,q\n"
    )
    return path


@pytest.fixture
def model(tmp_path, recogniser):
    out = tmp_path / "served.onnx"
    build_served_graph(recogniser(tmp_path / "source.onnx"), out, preprocessing=Preprocessing())
    return out


def test_csv_list_scored_in_process_is_the_cosine(csv_list, model, faces):
    embed, description = model_embedder(model)
    seen = []
    scores = score_pairs(
        read_pair_list(csv_list), embed, "pairs", lambda done, total: seen.append((done, total))
    )
    vectors = embed(faces[:4])
    expected = [vectors[a] @ vectors[b] for a, b in ((0, 1), (0, 2), (2, 3), (1, 3))]
    np.testing.assert_allclose(scores.score, expected, atol=1e-6)
    np.testing.assert_array_equal(scores.genuine, [True, False, True, False])
    assert scores.group_names == ("a", "b")
    assert scores.names["first_identity"] == ("p", "q")
    assert description.contract_id is not None
    assert seen == [(4, 4)]


@pytest.mark.triton
def test_a_served_model_gives_the_same_scores(csv_list, served):
    in_process, _ = model_embedder(served.onnx)
    pairs = read_pair_list(csv_list)
    with url_embedder(served.url) as (embed, description):
        over_grpc = score_pairs(pairs, embed, "pairs")
    np.testing.assert_allclose(
        over_grpc.score, score_pairs(pairs, in_process, "pairs").score, atol=1e-6
    )
    assert description.name == "student"
    with pytest.raises(ServerError, match="--model-name"), url_embedder(served.url, "nobody"):
        pass


def test_rfw_layout(tmp_path, faces):
    for name, count in (("m.01", 2), ("m.02", 1)):
        for number in range(1, count + 1):
            save(tmp_path / "data" / "Asian" / name / f"{name}_{number:04d}.jpg", faces[number])
    folder = tmp_path / "txts" / "Asian"
    folder.mkdir(parents=True)
    (folder / "Asian_pairs.txt").write_text("m.01\t1\t2\nm.01\t1\tm.02\t1\n")
    genuine, impostor = read_pair_list(tmp_path)
    assert (genuine.group, genuine.genuine, impostor.genuine) == ("Asian", True, False)
    assert impostor.second.name == "m.02_0001.jpg"
    assert genuine.first_identity == genuine.second_identity == "m.01"


def test_lfw_list(tmp_path, faces):
    for name, number in (("Ann_A", 1), ("Ann_A", 4), ("Bob", 2)):
        save(tmp_path / name / f"{name}_{number:04d}.png", faces[number])
    (tmp_path / "pairs.txt").write_text("10\t300\nAnn_A\t1\t4\nAnn_A\t1\tBob\t2\n")
    pairs = read_pair_list(tmp_path / "pairs.txt")
    assert [pair.genuine for pair in pairs] == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first,second,group\n", "no column genuine"),
        ("first,second,group,genuine\n", "lists no pairs"),
        ("first,second,group,genuine\nx.png,y.png,a,1\n", r"names .*x\.png, which does not exist"),
        ("first,second,group,genuine\nx.png,y.png,a,yes\n", "line 2 has genuine 'yes'"),
    ],
)
def test_unusable_lists_are_one_clear_error(tmp_path, text, message):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_pair_list(path)
    with pytest.raises(DataError, match="no such file"):
        read_pair_list(tmp_path / "none.csv")
    with pytest.raises(DataError, match="not RFW's layout"):
        read_pair_list(tmp_path)


def test_images_that_are_no_aligned_faces_are_named(csv_list, model):
    embed, _ = model_embedder(model)
    pairs = read_pair_list(csv_list)
    image = csv_list.parent / "images" / "2.png"
    Image.new("RGB", (64, 64)).save(image)
    with pytest.raises(DataError, match=r"2\.png: is 64x64 RGB"):
        score_pairs(pairs, embed, "pairs")
    image.write_bytes(b"no image")
    with pytest.raises(DataError, match="not a readable image"):
        score_pairs(pairs, embed, "pairs")


def test_a_file_without_contract_is_refused(tmp_path, recogniser):
    with pytest.raises(ContractError, match="carries no contract"):
        model_embedder(recogniser(tmp_path / "source.onnx"))


def test_leaks_name_the_places():
    leaks = find_leaks({"train": ["a", "b", "a"], "test": ["b", "c"], "other": ["b"]})
    assert [(leak.item, leak.places) for leak in leaks] == [("b", ("other", "test", "train"))]


def test_images_in_two_groups_or_in_training_are_reported(csv_list, tmp_path, faces):
    pairs = read_pair_list(csv_list)
    codes = [caution.code for caution in image_leaks(pairs)]
    assert codes == ["image_in_two_groups"]  # 1.png is in a pair of each group
    save(tmp_path / "training" / "x" / "copy.png", faces[0])
    (first,) = image_leaks(pairs[:2], tmp_path / "training")
    assert first.code == "trained_on_test_images"
    assert "1 of 3 test images" in first.message
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        image_leaks(pairs, tmp_path / "empty")
