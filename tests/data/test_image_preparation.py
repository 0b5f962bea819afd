"""Images resized, cut, rescaled and normalised, by hand."""

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import colours, encoded, write_files
from transformer.data.images.batches import ImageRows
from transformer.data.images.decoding import FileImages
from transformer.data.images.preparation import Preparation
from transformer.data.source import Visit
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed

WIDE, TALL = colours(6, 13), colours(13, 6)


def resized(image, width, height, resample="BILINEAR"):
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[resample]))


@pytest.mark.parametrize(
    ("image", "fields", "expected"),
    [
        # 13 * 4 / 6 is 8.67: whole pixels below, of which the middle four.
        (WIDE, {}, resized(WIDE, 8, 4)[:, 2:6]),
        (TALL, {}, resized(TALL, 4, 8)[2:6]),
        (WIDE, {"crop_fraction": 0.8}, resized(WIDE, 10, 5)[:4, 3:7]),
        (WIDE, {"resize_to": (5,)}, resized(WIDE, 10, 5)[:4, 3:7]),
        (WIDE, {"resize": "stretch", "resample": "bicubic"}, resized(WIDE, 4, 4, "BICUBIC")),
        (WIDE, {"resize": "stretch", "resize_to": (6, 5)}, resized(WIDE, 5, 6)[1:5, :4]),
        (WIDE, {"resize": "stretch", "crop_fraction": 0.5}, resized(WIDE, 8, 8)[2:6, 2:6]),
        (WIDE, {"resize": "cut"}, WIDE[1:5, 4:8]),
        # Smaller than the result: black around it, one pixel more before than behind.
        (WIDE, {"resize_to": (1,)}, np.pad(resized(WIDE, 2, 1), [(2, 1), (1, 1), (0, 0)])),
        (WIDE[:, :1], {"resize": "cut"}, np.pad(WIDE[1:5, :1], [(0, 0), (2, 1), (0, 0)])),
        (WIDE[:4, :4], {"resize": "none"}, WIDE[:4, :4]),
    ],
)
def test_pixels(image, fields, expected):
    preparation = Preparation(4, **fields)
    require_allowed("task", preparation)
    np.testing.assert_array_equal(preparation.pixels(image), expected)
    if expected.shape == image.shape:
        assert preparation.keeps(*image.shape[:2])


def test_numbers():
    preparation = Preparation(2, rescale_factor=1 / 51, mean=(0.5, 1.0, 2.0), std=(1.0, 2.0, 4.0))
    bytes_ = np.full((1, 2, 2, 3), 102, np.uint8)
    found = preparation.normalized(bytes_)
    np.testing.assert_allclose(found[0, 0, 0], [1.5, 0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(preparation.visible(found), bytes_ / 255, atol=1e-6)


def test_images_that_cannot_be_prepared(tmp_path):
    with pytest.raises(DataError, match=r"6 x 13 pixels.*config\.task\.preparation\.resize"):
        Preparation(4, resize="none").pixels(WIDE)
    with pytest.raises(DataError, match="cut it first"):
        Preparation(500).pixels(np.zeros((1, 400_000, 1), np.uint8))
    images = FileImages(write_files(tmp_path, {"a.png": encoded(WIDE)}), ["a.png"], 3)
    rows = ImageRows(images, np.zeros(1, int), Preparation(4, resize="none"))
    with pytest.raises(DataError, match=r"a\.png: the image has 6 x 13"):
        rows.batch([Visit(0)])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 0}, "image_size"),
        ({"resize": "squeeze"}, "squeeze.*stretch"),
        ({"resample": "sinc"}, "sinc.*lanczos"),
        ({"resize_to": (4, 4)}, "resize_to is .*the shorter side"),
        ({"resize": "stretch", "resize_to": (4,)}, "resize_to is .*height and width"),
        ({"resize_to": (0,)}, "resize_to"),
        ({"resize_to": (5,), "crop_fraction": 0.8}, "crop_fraction .*resize_to"),
        ({"resize": "cut", "crop_fraction": 0.8}, "crop_fraction .*resize=cut"),
        ({"rescale_factor": 0.0}, "rescale_factor"),
        ({"mean": (float("nan"),)}, "mean"),
        ({"std": (0.1, 0.2)}, r"std is \(0.1, 0.2\): one number, or one a channel"),
    ],
)
def test_values_that_cannot_work(fields, said):
    with pytest.raises(ConfigError, match=rf"config\.task\..*{said}"):
        require_allowed("task", Preparation(**{"image_size": 4, **fields}))
