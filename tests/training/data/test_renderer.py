import numpy as np
import pytest

from mstkd_serve.errors import DataError
from mstkd_serve.golden import golden_faces
from mstkd_training.data.golden import render_golden_faces
from mstkd_training.data.identity import FACTORS, GROUP_DISTRIBUTIONS, sample_identities
from mstkd_training.data.nuisance import sample_nuisance
from mstkd_training.data.rendered import render_faceset
from mstkd_training.data.renderer import EYE_OFFSET, EYE_Y, render

GROUPS = list(GROUP_DISTRIBUTIONS)


def test_equal_seeds_give_equal_pixels_and_other_seeds_do_not():
    def pixels(seed: int) -> np.ndarray:
        return render_faceset(
            GROUPS, identities_per_group=2, images_per_identity=3, seed=seed
        ).images

    np.testing.assert_array_equal(pixels(1), pixels(1))
    assert (pixels(1) != pixels(2)).mean() > 0.5


def test_a_picture_does_not_depend_on_the_batch_it_is_drawn_in():
    people, conditions = sample_identities("Asian", 20, 0), sample_nuisance(20, 0)
    together = render(people, conditions)
    np.testing.assert_array_equal(render(people[:3], conditions[:3]), together[:3])


def test_more_identities_keep_the_first_ones():
    many, few = sample_identities("Indian", 9, 4), sample_identities("Indian", 5, 4)
    np.testing.assert_array_equal(many.factors[:5], few.factors)


@pytest.mark.parametrize("group", GROUPS)
def test_eyes_sit_at_the_arcface_template(group):
    faces = render(sample_identities(group, 8, 3), sample_nuisance(8, 3, 0.0))
    for side in (-1, 1):
        x, y = round(56 + side * EYE_OFFSET), round(EYE_Y)
        eye = faces[:, y - 1 : y + 2, x - 9 : x + 10].astype(int).mean(axis=-1)
        centre = eye[:, :, 5:-5]  # identities differ in the distance of the eyes
        assert (centre.min(axis=(1, 2)) < 60).all()
        assert (eye.max(axis=(1, 2)) > 190).all()


def test_groups_vary_in_their_own_factors():
    for group in GROUPS:
        spread = sample_identities(group, 400, 0).factors.std(axis=0)
        varied = GROUP_DISTRIBUTIONS[group].varied
        assert {name for name, s in zip(FACTORS, spread, strict=True) if s > 0.6} == varied
    subsets = [GROUP_DISTRIBUTIONS[group].varied for group in GROUPS]
    for i, a in enumerate(subsets):
        for b in subsets[i + 1 :]:
            assert len(a & b) < len(a) / 2


def test_conditions_change_the_picture_more_than_nothing():
    people = sample_identities("African", 1, 0)[np.zeros(6, np.int64)]
    still = render(people, sample_nuisance(6, 1, 0.0)).astype(int)
    varied = render(people, sample_nuisance(6, 1, 1.0)).astype(int)
    assert np.abs(still - still[0]).max() == 0
    assert np.abs(varied - varied[0]).mean(axis=(1, 2, 3))[1:].min() > 5


def test_unknown_group_lists_the_known_ones():
    with pytest.raises(DataError, match="'Martian' cannot be rendered: choose among African"):
        render_faceset(["Martian"], identities_per_group=1, images_per_identity=2, seed=0)


@pytest.mark.parametrize("wrong", [{"identities_per_group": 0}, {"seed": -1}])
def test_impossible_counts_are_named(wrong):
    arguments = {"identities_per_group": 2, "images_per_identity": 2, "seed": 0} | wrong
    with pytest.raises(DataError, match=next(iter(wrong))):
        render_faceset(GROUPS, **arguments)


def test_golden_faces_come_from_the_renderer():
    # Exponentials may round differently on another processor: one grey level is allowed.
    again = render_golden_faces().images[::2].astype(int)
    assert np.abs(again - golden_faces().astype(int)).max() <= 1
