"""Every kind of input that is no aligned face is refused by name, with a reason and a remedy."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mstkd_client import InvalidFace
from mstkd_client._decode import MAX_FILE_BYTES
from mstkd_client._images import read_faces

FACE = np.random.default_rng(3).integers(0, 256, (112, 112, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(faces):
    return np.concatenate(list(read_faces(faces)))


def png(width, height, *, bits=8, colour=2, frames=b""):
    """A hand-made PNG; its pixels are missing, so that decoding them would fail."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    end = chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + frames + end


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_files_give_the_very_pixels(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(read(encoded(Image.fromarray(FACE), kind, **options)), FACE[None])


def test_a_jpeg_gives_pillows_pixels():
    data = encoded(Image.fromarray(FACE), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read(data), expected[None])


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, FACE), (3, FACE[::-1, ::-1]), (6, np.rot90(FACE, -1)), (8, np.rot90(FACE))],
)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_exif_orientation_is_applied(orientation, upright, as_bytes):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(FACE), "PNG", exif=exif)
    np.testing.assert_array_equal(
        read(data if as_bytes else Image.open(io.BytesIO(data))), upright[None]
    )


def test_opaque_alpha_is_dropped():
    opaque = Image.fromarray(FACE).convert("RGBA")
    for face in (opaque, encoded(opaque)):
        np.testing.assert_array_equal(read(face), FACE[None])


def test_an_array_that_is_not_contiguous_is_read_by_value():
    mirrored = FACE[:, ::-1]
    np.testing.assert_array_equal(read([mirrored])[0], np.ascontiguousarray(mirrored))


def test_what_converts_to_an_array_is_an_array():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return FACE

        def __iter__(self):
            raise AssertionError("iterated instead of converted")

    np.testing.assert_array_equal(read(Tensor()), FACE[None])


def transparent():
    image = Image.fromarray(FACE).convert("RGBA")
    image.putpixel((5, 5), (1, 2, 3, 254))
    return image


def damaged():
    return encoded(Image.fromarray(FACE))[:-2000]


ONE_FRAME = Image.fromarray(FACE)
IMAGES = {
    "not_aligned": (Image.new("RGB", (250, 200)), r"250x200 pixels.*align"),
    "grey": (ONE_FRAME.convert("L"), "is grey"),
    "grey_alpha": (ONE_FRAME.convert("LA"), "grey with alpha"),
    "black_and_white": (ONE_FRAME.convert("1"), "black and white"),
    "palette": (ONE_FRAME.convert("P"), "palette"),
    "cmyk": (ONE_FRAME.convert("CMYK"), "CMYK"),
    "sixteen_bit_grey": (Image.new("I;16", (112, 112)), "16 bits"),
    "floating": (Image.new("F", (112, 112)), "floating-point"),
    "another_mode": (ONE_FRAME.convert("YCbCr"), "colour mode YCbCr"),
    "transparent": (transparent(), "transparent"),
}
BYTES = {
    "garbage": (b"these are no pixels", "is not a JPEG"),
    "nothing": (b"", "is not a JPEG"),
    "gif": (encoded(ONE_FRAME, "GIF"), "is not a JPEG"),
    "tiff": (encoded(ONE_FRAME, "TIFF"), "is not a JPEG"),
    "damaged": (damaged(), "damaged"),
    "not_aligned": (png(640, 480), r"640x480 pixels.*align"),
    "cmyk_jpeg": (encoded(ONE_FRAME.convert("CMYK"), "JPEG"), "CMYK"),
    "grey_jpeg": (encoded(ONE_FRAME.convert("L"), "JPEG"), "is grey"),
    "palette_png": (encoded(ONE_FRAME.convert("P")), "palette"),
    "sixteen_bit_rgb": (png(112, 112, bits=16), "16 bits a channel"),
    "sixteen_bit_rgba": (png(112, 112, bits=16, colour=6), "16 bits a channel"),
    "colour_key": (encoded(ONE_FRAME, transparency=(1, 2, 3)), "transparent"),
    "frames": (
        encoded(ONE_FRAME, save_all=True, append_images=[Image.new("RGB", (112, 112))]),
        "several frames",
    ),
    "too_many_bytes": (bytes(MAX_FILE_BYTES + 1), r"too many.*align"),
    "bomb": (png(60_000, 60_000), "align"),
    "warned_bomb": (png(10_000, 10_000), "align"),
}
ARRAYS = {
    "float": (FACE / 255, r"float64. Give uint8 0..255"),
    "int64": (FACE.astype(np.int64), "int64. Give uint8 0..255"),
    "grey": (FACE[..., 0], "It is grey"),
    "grey_channel": (FACE[..., :1], "It is grey"),
    "grey_batch": (FACE[None, ..., :1], "It is grey"),
    "four_channels": (np.zeros((112, 112, 4), np.uint8), "4 channels"),
    "channels_first": (FACE.transpose(2, 0, 1), "channels come first"),
    "channels_first_batch": (FACE.transpose(2, 0, 1)[None], "channels come first"),
    "not_aligned": (np.zeros((250, 250, 3), np.uint8), "align"),
    "flat": (FACE.reshape(-1), r"Give \(112, 112, 3\)"),
    "five_dimensions": (FACE[None, None], r"Give \(112, 112, 3\)"),
    "scalar": (np.uint8(3), r"shape \(\)"),
}


@pytest.mark.parametrize(("face", "reason"), IMAGES.values(), ids=IMAGES)
def test_images_that_are_no_aligned_rgb_face(face, reason):
    with pytest.raises(InvalidFace, match=f"^the face .*{reason}"):
        read(face)


@pytest.mark.parametrize(("face", "reason"), BYTES.values(), ids=BYTES)
def test_files_that_are_no_aligned_rgb_face(face, reason, tmp_path):
    with pytest.raises(InvalidFace, match=f"^the face .*{reason}"):
        read(face)
    path = tmp_path / "face.bin"
    path.write_bytes(face)
    with pytest.raises(InvalidFace, match=rf"^face 0 \({path}\) .*{reason}"):
        read([path])


@pytest.mark.parametrize(("face", "reason"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_no_aligned_rgb_face(face, reason):
    with pytest.raises(InvalidFace, match=f"^face 1 .*{reason}"):
        read([FACE, face])


def test_a_large_image_is_refused_when_warnings_are_only_shown():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(InvalidFace, match=r"10000x10000 pixels.*align"):
            read(png(10_000, 10_000))


@pytest.mark.parametrize("faces", [[], (), iter([]), np.zeros((0, 112, 112, 3), np.uint8)])
def test_no_faces_at_all(faces):
    with pytest.raises(InvalidFace, match="no faces"):
        read(faces)


@pytest.mark.parametrize("faces", [None, 3, {"a": FACE}, {1, 2}])
def test_what_holds_no_faces_in_order(faces):
    with pytest.raises(InvalidFace, match="which has no order of faces"):
        read(faces)


@pytest.mark.parametrize("item", [None, 3, [FACE]])
def test_items_of_another_kind_are_named(item):
    with pytest.raises(InvalidFace, match=f"^face 1 is a {type(item).__name__}"):
        read([FACE, item])


def test_an_array_like_that_does_not_convert():
    class OnGpu:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("on another device")

    with pytest.raises(InvalidFace, match="the face is a OnGpu that does not convert"):
        read(OnGpu())


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(InvalidFace, match=r"^the face \(.*none.png\) does not exist"):
        read(tmp_path / "none.png")
    with pytest.raises(InvalidFace, match=r"^face 1 \(.*\) is a folder"):
        read([FACE, str(tmp_path)])


def test_an_invalid_face_is_a_value_error():
    with pytest.raises(ValueError, match="no faces"):
        read([])


def test_errors_hold_no_pixels():
    wrong = np.full((100, 100, 3), 201, np.uint8)
    with pytest.raises(InvalidFace) as caught:
        read(wrong)
    assert "201" not in str(caught.value)


WHOLE = [encoded(ONE_FRAME, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP")]


@settings(max_examples=150, deadline=None)
@given(
    whole=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
    kept=st.floats(0, 1),
)
def test_hostile_bytes_are_a_face_or_an_invalid_face(whole, changes, kept):
    data = bytearray(whole)
    for position, value in changes:
        data[position % len(data)] = value
    try:
        pixels = read(bytes(data[: int(kept * len(data))]))
    except InvalidFace:
        return
    assert (pixels.shape, pixels.dtype) == ((1, 112, 112, 3), np.uint8)
