import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstkd_serve.contract import (
    CONTRACT_ID_KEY,
    CONTRACT_KEY,
    FaceContract,
    Preprocessing,
    load_preprocessing,
)
from mstkd_serve.errors import ContractError

CONTRACT = FaceContract(embedding_dim=512, embedding_space="weights-0123")
IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def test_id_is_stable_across_releases():
    # Changing this value cuts every deployed gallery off from new embeddings.
    assert CONTRACT.id == "24d54f219461415f"


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (123.675, 116.28, 103.53)},
        {"std": (58.395, 57.12, 57.375)},
        {"flip": True},
        {"alignment": "other"},
        {"embedding_dim": 128},
        {"embedding_space": "weights-4567"},
    ],
)
def test_every_value_is_part_of_the_id(change):
    changed = FaceContract(**CONTRACT.model_dump() | change)
    assert changed.id != CONTRACT.id


def test_round_trip_through_metadata():
    back = FaceContract.from_metadata(CONTRACT.metadata(), source="here")
    assert back == CONTRACT
    assert FaceContract.from_metadata({}, source="here") is None


def test_edited_values_are_noticed():
    metadata = CONTRACT.metadata()
    metadata[CONTRACT_KEY] = metadata[CONTRACT_KEY].replace("127.5", "128.0", 1)
    with pytest.raises(ContractError, match=r"m\.onnx: its contract id"):
        FaceContract.from_metadata(metadata, source="m.onnx")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"embedding_dim": "many"}'])
def test_malformed_contract_names_its_source(text):
    with pytest.raises(ContractError, match=r"m\.onnx: its contract is malformed"):
        FaceContract.from_metadata({CONTRACT_KEY: text, CONTRACT_ID_KEY: ""}, source="m.onnx")


def test_network_input_equals_the_formula_by_hand():
    faces = np.zeros((1, 112, 112, 3), np.uint8)
    faces[0, 5, 7] = [255, 128, 0]
    pixels = Preprocessing(**IMAGENET).network_input(faces)
    assert pixels.shape == (1, 3, 112, 112)
    assert pixels.dtype == np.float32
    expected = [(255 - 123.675) / 58.395, (128 - 116.28) / 57.12, (0 - 103.53) / 57.375]
    np.testing.assert_allclose(pixels[0, :, 5, 7], expected, rtol=1e-6)


@given(st.integers(0, 255))
def test_arcface_maps_pixels_to_minus_one_to_one(level):
    faces = np.full((1, 112, 112, 3), level, np.uint8)
    pixels = Preprocessing().network_input(faces)
    np.testing.assert_allclose(pixels, (level - 127.5) / 127.5, rtol=1e-6)


def test_contract_by_name_and_by_file(tmp_path: Path):
    assert load_preprocessing("arcface") == Preprocessing()
    path = tmp_path / "c.json"
    path.write_text(json.dumps(IMAGENET))
    assert load_preprocessing(str(path)) == Preprocessing(**IMAGENET)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not a JSON file"),
        ('{"mean": [1, 2]}', "mean"),
        ('{"mean": [1, 2, 3], "std": [0, 1, 1]}', "std must lie above 0"),
        ('{"mean": [-1, 2, 3]}', "mean must lie in 0 to 255"),
        ('{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}', "multiply mean and std by 255"),
        ('{"mean": [1, 2, NaN]}', "finite"),
        ('{"colour": "BGR"}', "colour"),
        ('{"channel_order": "BGR"}', "channel_order"),
        ("[1]", "valid dictionary"),
    ],
)
def test_bad_contract_file_names_file_and_field(tmp_path: Path, content, message):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(ContractError, match=message) as caught:
        load_preprocessing(str(path))
    assert str(path) in str(caught.value)


def test_unknown_contract_name_lists_the_known_ones():
    with pytest.raises(ContractError, match="arcface"):
        load_preprocessing("facenet")


def test_network_that_normalises_itself_may_take_mean_0_std_1():
    assert Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)).std == (1, 1, 1)
