"""Photos are read as they are seen; what cannot be used is refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mstkd_client import (
    InvalidFace,
)
from mstkd_client.align import (
    ARCFACE_112,
    align,
    read_photo,
)

TEMPLATE = np.array(ARCFACE_112)
NOISE = np.random.default_rng(5).integers(0, 256, (150, 200, 3), dtype=np.uint8)
POINTS = TEMPLATE + 20


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, *, bits=8, colour=2):
    """A hand-made PNG without pixels, so that decoding it would fail."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body) for kind, body in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    )


def test_every_kind_of_photo_gives_the_same_pixels(tmp_path):
    image = Image.fromarray(NOISE)
    path = tmp_path / "photo.png"
    image.save(path)
    data = path.read_bytes()
    for photo in (NOISE, path, str(path), data, bytearray(data), memoryview(data), image):
        np.testing.assert_array_equal(read_photo(photo), NOISE)
    assert read_photo(NOISE[:, ::-1]).flags.c_contiguous
    np.testing.assert_array_equal(read_photo(encoded(image.convert("RGBA"))), NOISE)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_landmarks_refer_to_the_upright_photo(orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.rot90(NOISE, -turns)), exif=exif)
    for photo in (data, Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(read_photo(photo), NOISE)
        np.testing.assert_array_equal(align(photo, POINTS), align(NOISE, POINTS))


def test_a_phones_jpeg_of_two_pictures_gives_the_main_one():
    first, second = Image.fromarray(NOISE), Image.fromarray(NOISE[::2, ::2])
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_photo(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("photo", "reason"),
    [
        (Image.fromarray(NOISE).convert("L"), "colour mode L"),
        (encoded(Image.fromarray(NOISE).convert("L"), "JPEG"), "colour mode L"),
        (encoded(Image.fromarray(NOISE).convert("P")), "colour mode P"),
        (encoded(Image.fromarray(NOISE).convert("CMYK"), "JPEG"), "colour mode CMYK"),
        (encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16))), "16 bits a channel"),
        (png(200, 200, bits=16), "16 bits a channel"),
        (Image.fromarray(NOISE).convert("LA"), "colour mode LA"),
        (Image.fromarray(np.dstack([NOISE, NOISE[..., 0]])), "transparent"),
        (encoded(Image.fromarray(NOISE), transparency=(1, 2, 3)), "transparent"),
        (
            encoded(
                Image.fromarray(NOISE),
                "WEBP",
                save_all=True,
                append_images=[Image.fromarray(255 - NOISE)],
            ),
            "several frames",
        ),
        (encoded(Image.fromarray(NOISE), "GIF"), "JPEG, PNG, WEBP, BMP"),
        (encoded(Image.fromarray(NOISE))[:5000], "undamaged"),
        (b"", "cannot be read"),
        (b"no image", "cannot be read"),
        ("missing.jpg", "missing.jpg does not exist"),
        (Path("/"), "is a folder"),
        (NOISE[..., 0], r"uint8 \(150, 200\)"),
        (NOISE.astype(np.float32), "float32"),
        (NOISE.transpose(2, 0, 1), r"\(3, 150, 200\)"),
        (NOISE[None], r"\(1, 150, 200, 3\)"),
        (NOISE[:0], r"\(0, 200, 3\)"),
        (None, "NoneType"),
        (png(8001, 8001), "above 64000000 pixels"),
        (png(10, 40000), "32766 on a side"),
        (np.zeros((1, 40000, 3), np.uint8), "32766 on a side"),
        (png(30000, 30000), "exceeds limit"),
        (bytes(64 * 2**20 + 1), "holds above 67108864 bytes"),
    ],
)
def test_photos_that_cannot_be_used_are_refused(photo, reason):
    with pytest.raises(InvalidFace, match=reason):
        read_photo(photo)


def test_what_cannot_become_an_array_is_refused():
    class OnTheGpu:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("copy it to the host first")

    with pytest.raises(InvalidFace, match="copy it to the host first"):
        read_photo(OnTheGpu())
    with pytest.raises(InvalidFace, match="no array"):
        align(NOISE, OnTheGpu())


@pytest.mark.parametrize("as_file", [True, False])
def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch, tmp_path, as_file):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    bomb = png(8001, 8001)
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(InvalidFace, match="8001x8001"):
        read_photo(tmp_path / "bomb.png" if as_file else bomb)


def test_a_large_file_is_refused_before_it_is_opened(monkeypatch, tmp_path):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(InvalidFace, match=r"large\.jpg holds above 67108864 bytes"):
        read_photo(tmp_path / "large.jpg")
