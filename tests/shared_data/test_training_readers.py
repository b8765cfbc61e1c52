"""The readers of training data on real files."""

from pathlib import Path

import numpy as np
import pytest

from mstkd_training.data.testset import bins_test_set
from mstkd_training.data.verification_bin import read_verification_bin

pytestmark = [pytest.mark.shared_data]


def test_a_genuine_verification_file_is_read(shared: Path) -> None:
    path = shared / "data" / "eval_bin" / "small_lfw.bin"
    encoded, same = read_verification_bin(path)
    assert len(encoded) == 20
    assert same.dtype == np.bool_
    assert len(same) == 10
    tests = bins_test_set({"LFW": path})
    assert tests.unreadable == ()
    pixels = tests.faces.images[:]
    assert pixels.shape == (20, 112, 112, 3)
    assert pixels.std(axis=(1, 2, 3)).min() > 20, "not photographs"
    # Skin is redder than blue: channels in the wrong order would turn this round.
    middle = pixels[:, 40:90, 36:76].mean(axis=(0, 1, 2))
    assert middle[0] > middle[2] + 10
