import struct
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import colours, encoded, png, tiff, write_files
from transformer.data.images import decoding as image_decoding
from transformer.data.images.decoding import FileImages, decode, read_image_file
from transformer.errors import DataError, MissingDependencyError

RGB = colours(3, 5)
GREY = RGB[..., 0]


def with_alpha(array, alpha):
    return np.concatenate([array, np.full((*array.shape[:2], 1), alpha, np.uint8)], axis=-1)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_formats_without_loss(form):
    np.testing.assert_array_equal(decode(encoded(RGB, form), 3).pixels, RGB)
    np.testing.assert_array_equal(decode(encoded(GREY, form), 1).pixels, GREY[..., None])


def test_more_formats():
    lossless = encoded(RGB, "WEBP", lossless=True)
    np.testing.assert_array_equal(decode(lossless, 3).pixels, RGB)
    flat = np.full((8, 8, 3), [200, 100, 50], np.uint8)
    assert abs(decode(encoded(flat, "JPEG"), 3).pixels.astype(int) - flat).max() <= 3
    np.testing.assert_array_equal(decode(encoded(flat, "GIF"), 3).pixels, flat)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (GREY, "grey", np.repeat(GREY[..., None], 3, axis=-1)),
        (GREY > 127, "black and white", np.repeat((GREY > 127)[..., None] * 255, 3, axis=-1)),
        (RGB, "RGB", RGB),
        (with_alpha(RGB, 255), "RGB with transparency", RGB),
        (with_alpha(RGB, 0), "RGB with transparency", np.full_like(RGB, 255)),
        (
            with_alpha(GREY[..., None], 0),
            "grey with transparency",
            np.full_like(RGB, 255),
        ),
    ],
)
def test_kinds(image, kind, expected):
    found = decode(encoded(image), 3)
    assert found.kind == kind
    assert found.pixels.dtype == np.uint8
    np.testing.assert_array_equal(found.pixels, expected)


def test_half_of_a_colour_over_white():
    found = decode(encoded(with_alpha(np.zeros((1, 1, 3), np.uint8), 51)), 3).pixels
    assert found.tolist() == [[[204, 204, 204]]]


def test_grey_of_colours():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert decode(encoded(image), 1).pixels[..., 0].tolist() == [[76, 150, 29, 255]]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(form):
    image = np.array([[0, 128, 129, 257, 25700, 65535]], np.uint16)
    found = decode(encoded(image, form), 1)
    assert found.kind == "16-bit grey"
    assert found.pixels[0, :, 0].tolist() == [0, 0, 1, 1, 100, 255]


DEEP = struct.pack(">4H", 0, 257, 25700, 65535)
TURNED = struct.pack("<4H", 0, 257, 25700, 65535)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # White is zero, with any number of bits.
        (tiff(4, 16, 0, TURNED), [255, 254, 155, 0]),
        (tiff(4, 16, 1, TURNED), [0, 1, 100, 255]),
        (tiff(4, 16, 0, TURNED, orientation=3), [0, 155, 254, 255]),
        (tiff(4, 8, 0, bytes([0, 1, 100, 255])), [255, 254, 155, 0]),
        (tiff(8, 1, 0, bytes([0b01010000])), [255, 0, 255, 0, 255, 255, 255, 255]),
        (tiff(2, 12, 1, bytes([0xFF, 0xF0, 0x00])), [255, 0]),
        # One colour is transparent: white, however many bits tell it.
        (png(4, 16, 0, DEEP, [0]), [255, 1, 100, 255]),
        (png(4, 16, 0, DEEP, [25700]), [0, 1, 255, 255]),
        (png(4, 16, 0, DEEP, [25701]), [0, 1, 100, 255]),
        (png(4, 8, 0, bytes([0, 7, 100, 255]), [7]), [0, 255, 100, 255]),
        (png(4, 4, 0, bytes([0x07, 0xF3]), [7]), [0, 255, 255, 51]),
        (png(4, 2, 0, bytes([0b00011011]), [1]), [0, 255, 170, 255]),
        (png(8, 1, 0, bytes([0b01010000]), [0]), [255] * 8),
        # Alpha behind the greys, as a factor of them and beside them.
        (tiff(2, 8, 1, bytes([0, 255, 100, 0]), samples=2, extra=2), [0, 255]),
        (tiff(2, 8, 1, bytes([0, 255, 0, 0]), samples=2, extra=1), [0, 255]),
    ],
)
def test_greys_that_are_stored_otherwise(content, expected):
    grey = decode(content, 1)
    assert grey.pixels.ravel().tolist() == expected
    assert grey.kind in image_decoding.GREY_KINDS
    np.testing.assert_array_equal(decode(content, 3).pixels, grey.pixels.repeat(3, axis=-1))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(2, 16, 2, DEEP + DEEP[:4]), [[0, 1, 100], [255, 0, 1]]),
        (png(2, 16, 2, DEEP[:6] + bytes(6), [0, 257, 25700]), [[255] * 3, [0, 0, 0]]),
        (tiff(2, 16, 2, TURNED + TURNED[:4], samples=3), [[0, 1, 100], [255, 0, 1]]),
        (tiff(1, 8, 5, bytes([0, 255, 255, 0]), samples=4), [[255, 0, 0]]),
        (tiff(1, 8, 6, bytes([255, 128, 128]), samples=3), [[255, 255, 255]]),
        (tiff(1, 8, 8, bytes([255, 0, 0]), samples=3), [[254, 255, 254]]),
    ],
)
def test_colours_that_are_stored_otherwise(content, expected):
    found = decode(content, 3).pixels
    assert found.tolist() == [expected]
    # What is checked in colour can also be had in grey, by the same way.
    grey = decode(content, 1).pixels
    np.testing.assert_array_equal(grey, decode(encoded(found), 1).pixels)


def test_portable_grey_maps_with_few_values():
    assert decode(b"P5 2 1 15 " + bytes([0, 15]), 1).pixels[..., 0].tolist() == [[0, 255]]


def test_palettes_and_their_transparency():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    found = decode(encoded(image), 3)
    assert (found.kind, found.pixels.tolist()) == ("palette", [[[10, 20, 30], [40, 50, 60]]])
    found = decode(encoded(image, transparency=b"\x00\xff"), 3)
    assert found.kind == "palette with transparency"
    assert found.pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_colour_that_is_transparent():
    image = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    found = decode(encoded(image, transparency=(1, 2, 3)), 3)
    assert found.pixels.tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_cmyk():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = decode(encoded(image, "JPEG"), 3)
    assert found.kind == "CMYK"
    assert abs(found.pixels.astype(int) - [255, 0, 0]).max() <= 3


def test_the_first_frame_is_taken():
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content, 1).pixels.max() == 10


# How a camera that turns by this much stores the image that is upright.
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, ::-1]),
        (3, lambda image: image[::-1, ::-1]),
        (4, lambda image: image[::-1]),
        (5, lambda image: image.transpose(1, 0, 2)),
        (6, np.rot90),
        (7, lambda image: image.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda image: np.rot90(image, -1)),
    ],
)
def test_orientation(orientation, stored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(np.ascontiguousarray(stored(RGB)), exif=exif)
    np.testing.assert_array_equal(decode(content, 3).pixels, RGB)


def test_damaged_metadata_of_a_camera_do_not_matter():
    # One entry is announced, and none is there.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
    assert decode(encoded(RGB, "JPEG", exif=exif), 3).pixels.shape == RGB.shape


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<svg></svg>", "no PNG, JPEG"),
        (encoded(RGB)[:40], "truncated|damaged"),
        (encoded(colours(32, 32), "JPEG")[:-100], "truncated"),
        (encoded(colours(32, 32), "WEBP")[:-100], "decoder"),
        (b"P5 10000 10000 255 ", r"10,000 x 10,000 pixels, more than .*smaller"),
        (b"P5 100000 100000 255 ", r"far more than .*smaller"),
        (encoded(GREY.astype(np.int32), "TIFF"), "32-bit or signed numbers"),
        (encoded(GREY.astype(np.float32), "TIFF"), "32-bit or signed numbers"),
        (tiff(4, 16, 1, TURNED, kind=2), "32-bit or signed numbers"),
        # Ghostscript would be started.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\n", "no PNG, JPEG"),
    ],
)
def test_what_cannot_be_decoded(tmp_path, content, message):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_image_file(path, 3)
    assert str(path) in str(error.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none\.png .*does not exist"):
        read_image_file(tmp_path / "none.png", 3)
    with pytest.raises(DataError, match="is a folder"):
        read_image_file(tmp_path, 3)


def test_warnings_of_others_stay():
    decode(encoded(RGB), 3)
    filters = len(warnings.filters)
    decode(encoded(RGB), 3)
    assert len(warnings.filters) == filters
    with pytest.raises(UserWarning):
        warnings.warn("not of Pillow", stacklevel=1)


def test_threads_may_ask_at_the_same_time(tmp_path):
    arrays = [colours(4 + number, 6, seed=number) for number in range(8)]
    files = {f"{number}.png": encoded(array) for number, array in enumerate(arrays)}
    images = FileImages(write_files(tmp_path, files), list(files), 3)
    assert len(images) == 8
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(images.__getitem__, list(range(8)) * 8))
    for image, array in zip(found, arrays * 8, strict=True):
        np.testing.assert_array_equal(image, array)


def test_without_pillow(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(encoded(RGB))
    image_decoding.require_pillow.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"pillow.*\[vision\]"):
        read_image_file(path, 3)


def test_threads_decode_large_images_one_at_a_time(monkeypatch):
    content = encoded(colours(8, 8))
    assert decode(content, 3).pixels.shape == (8, 8, 3)
    inside, most = [], []

    def converted(*arguments, known=image_decoding._converted):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return known(*arguments)

    monkeypatch.setattr(image_decoding, "_converted", converted)
    for large, expected in ((63, {1}), (64, {1, 2, 3, 4})):
        monkeypatch.setattr(image_decoding, "_LARGE", large)
        most.clear()
        with ThreadPoolExecutor(4) as threads:
            assert len(list(threads.map(lambda _: decode(content, 3), range(4)))) == 4
        assert set(most) <= expected
        assert (len(set(most)) > 1) == (len(expected) > 1)
