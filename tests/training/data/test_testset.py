import os
import pickle

import numpy as np
import pytest

from mstkd_serve.errors import DataError
from mstkd_training.data.encoded import decode_face
from mstkd_training.data.testset import (
    bins_test_set,
    listed_test_set,
    write_rfw,
    write_test_set,
)
from mstkd_training.data.verification_bin import read_verification_bin, write_verification_bin

SAME = [True, False, False, True]


class Malicious:
    """Runs a command when it is unpickled by pickle.load."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.fixture
def images(face):
    return [face(number) for number in range(8)]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("as_arrays", [False, True])
def test_bins_of_every_writer_are_read(tmp_path, images, protocol, as_arrays):
    values = (images, SAME)
    if as_arrays:
        arrays = [np.frombuffer(image, np.uint8) for image in images]
        values = (arrays, list(np.array(SAME)))
    (tmp_path / "a.bin").write_bytes(pickle.dumps(values, protocol))
    encoded, same = read_verification_bin(tmp_path / "a.bin")
    assert encoded == images
    assert same.tolist() == SAME


def test_truth_values_may_be_one_array_and_python_2_wrote_byte_strings(tmp_path, images):
    text = pickle.dumps((["a", "b"], np.array([True])), 2)
    for letter in (b"a", b"b"):  # X: text of Python 3; U: a string of Python 2
        text = text.replace(b"X\x01\0\0\0" + letter, b"U\x01" + letter, 1)
    (tmp_path / "a.bin").write_bytes(text)
    encoded, same = read_verification_bin(tmp_path / "a.bin")
    assert (encoded, same.tolist()) == ([b"a", b"b"], [True])


def test_a_malicious_pickle_runs_nothing(tmp_path, images):
    proof, path = tmp_path / "proof", tmp_path / "a.bin"
    path.write_bytes(pickle.dumps((images, Malicious(proof))))
    with pytest.raises(DataError, match=r"a\.bin: its pickle asks for \w+\.system"):
        read_verification_bin(path)
    assert not proof.exists()
    with path.open("rb") as stream:
        pickle.load(stream)
    assert proof.exists(), "the file would not have run anything, so this shows nothing"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((eval, [True]), r"builtins\.eval|__builtin__"),
        (([np.array([eval], object)] * 2, [True]), r"an array of 'O8'"),
        (([b"a"] * 3, [True]), "3 images for 1 pairs"),
        (([], []), "0 images for 0 pairs"),
        (([b"a", 7], [True]), "a int where an image is needed"),
        (([b"a", b"b"], [3]), "a int where a truth value is needed"),
        ("text", "not an InsightFace verification file"),
    ],
)
def test_other_pickles_are_refused(tmp_path, value, message):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=message):
        read_verification_bin(tmp_path / "a.bin")


def test_damaged_and_missing_bins_are_named(tmp_path, images):
    with pytest.raises(DataError, match=r"a\.bin: no such file"):
        read_verification_bin(tmp_path / "a.bin")
    write_verification_bin(tmp_path / "a.bin", images, SAME)
    whole = (tmp_path / "a.bin").read_bytes()
    for content in (b"", whole[:300], whole[:-1], b"\xff" * 50):
        (tmp_path / "a.bin").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.bin: not an InsightFace verification file"):
            read_verification_bin(tmp_path / "a.bin")


def test_a_bin_a_group_makes_a_test_set(tmp_path, images, face):
    images[3] = b"damaged"
    write_verification_bin(tmp_path / "a.bin", images, SAME)
    write_verification_bin(tmp_path / "i.bin", [face(30 + n) for n in range(20)], [True] * 10)
    tests = bins_test_set({"Asian": tmp_path / "a.bin", "Indian": tmp_path / "i.bin"})
    pairs = tests.pairs
    assert tests.unreadable == ((f"{tmp_path}/a.bin image 3", "no JPEG, PNG, BMP or WebP image"),)
    assert pairs.genuine.tolist() == [True, False, True] + [True] * 10
    assert pairs.groups.tolist() == [0] * 3 + [1] * 10
    assert pairs.folds is not None
    assert pairs.folds.tolist() == [0, 5, 7, *range(10)]
    same = tests.faces.identities[pairs.first] == tests.faces.identities[pairs.second]
    np.testing.assert_array_equal(same, pairs.genuine)
    np.testing.assert_array_equal(tests.faces.images[pairs.second[:1]][0], decode_face(images[1]))


def rfw(root, face):
    images = {
        (group, f"m.{person}", number): face(50 * place + 5 * person + number)
        for place, group in enumerate(("Asian", "Indian"))
        for person in range(5)
        for number in (1, 2)
    }
    lines = {
        group: [f"m.{p}\t1\t2" for p in range(5)] + [f"m.{p} 1 m.{(p + 1) % 5} 2" for p in range(5)]
        for group in ("Indian", "Asian")
    }
    write_rfw(root, images, lines)


def test_rfw_keeps_its_order_and_its_ten_folds(tmp_path, face):
    rfw(tmp_path, face)
    tests = listed_test_set(tmp_path, ("Indian", "Asian"))
    assert tests.faces.group_names == ("Indian", "Asian")
    assert len(tests.faces) == 20
    pairs = tests.pairs
    assert pairs.genuine.tolist() == ([True] * 5 + [False] * 5) * 2
    assert pairs.folds is not None
    assert pairs.folds.tolist() == [*range(10), *range(10)]
    first = tests.faces.images[pairs.first[7:8]][0]
    np.testing.assert_array_equal(first, decode_face(face(50 + 5 * 2 + 1)))
    second = tests.faces.images[pairs.second[17:18]][0]
    np.testing.assert_array_equal(second, decode_face(face(5 * 3 + 2)))
    same = tests.faces.identities[pairs.first] == tests.faces.identities[pairs.second]
    np.testing.assert_array_equal(same, pairs.genuine)
    with pytest.raises(DataError, match="has no pairs of African; it has Asian, Indian"):
        listed_test_set(tmp_path, ("African",))


def test_a_pair_with_a_damaged_image_is_left_out_and_the_folds_stay(tmp_path, face):
    rfw(tmp_path, face)
    (tmp_path / "data/Asian/m.2/m.2_0001.jpg").write_bytes(b"")
    tests = listed_test_set(tmp_path)
    assert [name.rsplit("/")[-1] for name, _ in tests.unreadable] == ["m.2_0001.jpg"]
    assert tests.pairs.folds is not None
    assert tests.pairs.folds.tolist() == [0, 1, 3, 4, 5, 6, 8, 9, *range(10)]


def test_a_list_without_identities_still_knows_who_is_one_person(tmp_path, face):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(face(number))
    rows = ["0.png,1.png,a,1,x", "1.png,2.png,a,1,y", "2.png,3.png,a,0,y", "4.png,5.png,a,1,x"]
    text = "first,second,group,genuine,fold\n" + "\n".join(rows)
    (tmp_path / "pairs.csv").write_text(text)
    tests = listed_test_set(tmp_path / "pairs.csv")
    people = tests.faces.identities
    assert people[0] == people[1] == people[2]
    assert len({people[0], people[3], people[4]}) == 3
    assert people[4] == people[5]
    assert tests.pairs.folds is not None
    assert tests.pairs.folds.tolist() == [0, 1, 1, 0]


def test_a_group_without_a_readable_pair_is_named(tmp_path):
    write_verification_bin(tmp_path / "a.bin", [b"?"] * 4, [True, False])
    with pytest.raises(DataError, match="'Asian' has no pair whose images can be read"):
        bins_test_set({"Asian": tmp_path / "a.bin"})


def test_the_written_file_holds_the_pixels(tmp_path, face):
    rfw(tmp_path, face)
    tests = listed_test_set(tmp_path)
    write_test_set(tmp_path / "t.npz", tests)
    with np.load(tmp_path / "t.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["images"], tests.faces.images[:])
        np.testing.assert_array_equal(archive["fold"], tests.pairs.folds)
        assert archive["group_names"].tolist() == ["Asian", "Indian"]
        assert {"identities", "groups", "first", "second", "genuine", "pair_groups"} < set(archive)
