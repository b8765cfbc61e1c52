import numpy as np
import pytest

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.split import generalist_parts, hold_out, validation_pairs
from mstkd_training.stages.data import read_faces


def face_set(share=0.2, seed=3, per_group=(10, 21), images=4):
    identities = np.repeat(np.arange(sum(per_group)), images)
    groups = np.repeat([0, 1], np.multiply(per_group, images))
    held_out = hold_out(identities, groups, ("a", "b"), share, seed)
    blank = np.zeros((1, 112, 112, 3), np.uint8)
    pictures = np.broadcast_to(blank, (len(groups), 112, 112, 3))
    return FaceSet(pictures, identities, groups, ("a", "b"), held_out)


def test_the_same_share_of_whole_identities_is_held_out_of_every_group():
    faces = face_set()
    for name, wanted in (("a", 2), ("b", 4)):
        rows = faces.validation_rows(name)
        assert len(np.unique(faces.identities[rows])) == wanted
        assert len(rows) == 4 * wanted
    assert not set(faces.identities[faces.validation_rows()]) & set(
        faces.identities[faces.training_rows()]
    )
    assert sorted([*faces.validation_rows(), *faces.training_rows()]) == list(range(len(faces)))
    np.testing.assert_array_equal(face_set().held_out, faces.held_out)
    assert (face_set(seed=4).held_out != faces.held_out).any()


def test_an_identity_with_one_image_is_never_held_out():
    identities = np.array([0, 1, 2, 2, 3, 3, 4])
    for seed in range(20):
        held_out = hold_out(identities, np.zeros(7, np.int64), ("a",), 0.3, seed)
        assert set(identities[held_out]) == {2, 3}


def test_nothing_is_held_out_when_the_recipe_says_so():
    faces = face_set(share=0)
    assert len(faces.training_rows()) == len(faces)
    with pytest.raises(DataError, match=r"set data\.validation\.share above 0"):
        validation_pairs(faces, 1, 1, 0)


@pytest.mark.parametrize(("people", "images"), [((3, 9), 4), ((9, 9), 1)])
def test_a_group_too_small_to_share_out_is_named(people, images):
    with pytest.raises(DataError, match=r"group 'a' has .* data\.validation\.share=0"):
        face_set(per_group=people, images=images)


def test_validation_pairs_are_of_held_out_identities_within_each_group():
    faces = face_set()
    pairs = validation_pairs(faces, 20, 30, 1)
    held_out = set(faces.validation_rows())
    assert set(pairs.first) | set(pairs.second) <= held_out
    same = faces.identities[pairs.first] == faces.identities[pairs.second]
    np.testing.assert_array_equal(same, pairs.genuine)
    for index in (pairs.first, pairs.second):
        np.testing.assert_array_equal(faces.groups[index], pairs.groups)
    counts = {
        (group, kind): int(np.sum((pairs.groups == group) & (pairs.genuine == kind)))
        for group in (0, 1)
        for kind in (True, False)
    }
    # Group a has 2 held-out people of 4 images: 12 genuine pairs and 16 impostor ones in all.
    assert counts == {(0, True): 12, (0, False): 16, (1, True): 20, (1, False): 30}
    np.testing.assert_array_equal(validation_pairs(faces, 20, 30, 1).first, pairs.first)


def test_pairs_of_many_images_are_drawn_from_some_of_every_identity():
    faces = face_set(share=0.9, per_group=(30, 150), images=40)
    pairs = validation_pairs(faces, 4000, 4000, 1)
    seen = np.unique(np.concatenate([pairs.first, pairs.second])[np.tile(pairs.groups == 1, 2)])
    assert len(seen) <= 2200
    assert len(np.unique(faces.identities[seen])) == 135


def test_generalist_parts_share_no_identity_and_hold_as_many_of_each_group():
    faces = face_set(per_group=(11, 21))
    rows = faces.training_rows()
    parts = generalist_parts(faces, rows, 4, 9)
    assert sorted(np.concatenate(parts)) == list(rows)
    people = [set(faces.identities[part]) for part in parts]
    assert sum(map(len, people)) == len(set.union(*people))
    for group in (0, 1):
        sizes = [len({i for i in part if (i >= 11) == bool(group)}) for part in people]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 2
    again = generalist_parts(faces, rows, 4, 9)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(parts, generalist_parts(faces, rows, 4, 8), strict=True)
    )


def test_too_few_identities_for_generalists_are_named():
    faces = face_set(share=0)
    with pytest.raises(DataError, match=r"group 'a' has 10 identities .* need 12"):
        generalist_parts(faces, faces.training_rows(), 6, 0)


def test_an_identity_held_out_in_part_is_refused():
    with pytest.raises(DataError, match="identity 0 is held out in part"):
        FaceSet(
            np.zeros((2, 112, 112, 3), np.uint8),
            np.zeros(2, np.int64),
            np.zeros(2, np.int64),
            ("a",),
            np.array([True, False]),
        )


def test_the_data_artifact_keeps_the_split(finished_run):
    faces = read_faces(Artifact.open(finished_run / "data"))
    # The smoke recipe has 6 people of 4 images in each of 2 groups, and at least 2 are held out.
    assert len(faces.validation_rows("Asian")) == 8
    assert len(faces.training_rows("African")) == 16
    labels = faces.class_labels(faces.training_rows("Asian"))
    assert set(labels) == {0, 1, 2, 3}
