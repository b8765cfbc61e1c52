import io

import numpy as np
import pytest
from PIL import Image

from mstkd_serve.errors import DataError
from mstkd_training.data.encoded import (
    UnreadableImageError,
    WrongSizeError,
    decode_face,
    encode_face,
    resized_face,
)
from mstkd_training.data.packed import PackedImages, decode_faces


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_png_keeps_every_pixel_and_channels_stay_red_green_blue():
    pixels = np.zeros((112, 112, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 200, 100
    np.testing.assert_array_equal(decode_face(encode_face(pixels)), pixels)
    assert np.abs(decode_face(encode_face(pixels, "JPEG")).astype(int) - pixels).max() < 6


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_grey_palette_and_alpha_become_rgb(mode):
    image = Image.new("RGB", (112, 112), (255, 255, 255)).convert(mode)
    assert decode_face(saved(image)).min() == 255


def test_damage_is_one_kind_of_error(face):
    whole = face(1, "JPEG")
    image_16_bit = Image.fromarray(np.zeros((112, 112), np.uint16))
    for encoded in (
        b"",
        b"no image at all",
        whole[: len(whole) // 2],
        face(1)[:200],
        face(1)[:60] + b"\0" * 40 + face(1)[100:],
        saved(Image.new("RGB", (112, 112)), "GIF"),
        saved(image_16_bit),
    ):
        with pytest.raises(UnreadableImageError):
            decode_face(encoded)


def test_another_size_is_told_apart_from_damage_and_can_be_scaled():
    large = saved(Image.new("RGB", (224, 200), (10, 20, 30)))
    with pytest.raises(WrongSizeError, match="224 x 200"):
        decode_face(large)
    assert decode_face(resized_face(large))[0, 0].tolist() == [10, 20, 30]


def test_packed_faces_are_decoded_by_row(face, tmp_path):
    encoded = [face(number, kind) for number in range(6) for kind in ("PNG", "JPEG")]
    (tmp_path / "images.bin").write_bytes(b"".join(encoded))
    offsets = np.cumsum([0, *map(len, encoded)])
    images = PackedImages.open(tmp_path / "images.bin", offsets)
    wanted = np.stack([decode_face(one) for one in encoded])
    assert images.shape == (12, 112, 112, 3)
    for rows in (np.array([7, 0, 7]), np.arange(12)[::-1], slice(2, 9), slice(None), np.array([])):
        indices = rows if isinstance(rows, slice) else rows.astype(int)
        np.testing.assert_array_equal(images[indices], wanted[indices])
    with pytest.raises(IndexError, match="beyond the 12 faces"):
        images[np.array([12])]
    with pytest.raises(DataError, match="do not fit"):
        PackedImages.open(tmp_path / "images.bin", offsets[:-1])
    assert decode_faces([]).shape == (0, 112, 112, 3)
