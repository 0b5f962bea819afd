import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.images import rand_augment as rand_augment_module
from transformer.data.images.augmentation import (
    Box,
    cut_box,
    cutmix,
    flip,
    mixup,
    random_erasing,
    random_resized_crop,
    random_shift,
    resize,
)
from transformer.data.images.rand_augment import CHANGES, rand_augment

SHAPES = [(8, 8, 1), (8, 8, 3), (5, 9, 1), (20, 7, 3), (1, 1, 1), (1, 30, 3), (40, 2, 1)]


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(shape, seed=0):
    image = rng(seed).integers(256, size=shape, dtype=np.uint8)
    # Whoever writes into what was handed in is found out.
    image.flags.writeable = False
    return image


def ramp(height, width):
    """Red is the row, green the column; blue tells the image from what is outside of it."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.full_like(rows, 255)], 2)
    return image.astype(np.uint8)


RANDOM = {
    "crop": lambda image, generator: random_resized_crop(image, 6, generator),
    "shift": lambda image, generator: random_shift(image, 3, generator),
    "erasing": lambda image, generator: random_erasing(image, generator, 0.8),
    "rand_augment": lambda image, generator: rand_augment(image, 3, 7.5, generator),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", RANDOM)
def test_random_changes_are_functions_of_the_generator(kind, shape):
    image = noise(shape)
    changed = [RANDOM[kind](image, rng(seed)) for seed in range(12)]
    again = [RANDOM[kind](image, rng(seed)) for seed in range(12)]
    np.testing.assert_equal(changed, again)
    expected = (6, 6, shape[2]) if kind == "crop" else shape
    for one in changed:
        assert one.dtype == np.uint8
        assert one.shape == expected
    if min(shape[:2]) > 4:
        assert len({one.tobytes() for one in changed}) > 3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_resize(shape):
    image = noise(shape)
    assert resize(image, *shape[:2]) is image
    resized = resize(image, 4, 11)
    assert resized.shape == (4, 11, shape[2])
    assert resized.dtype == np.uint8
    same = np.full(shape, 77, np.uint8)
    np.testing.assert_equal(resize(same, 4, 11), 77)


def test_resizing_averages_all_pixels():
    # Every second pixel alone would be black.
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, 1::2] = 200
    inside = resize(stripes, 8, 8)[1:-1, 1:-1].astype(int)
    assert abs(inside - 100).max() <= 2
    # So are more pixels than are first averaged in blocks.
    large = np.repeat(np.repeat(noise((8, 8, 3)), 40, 0), 40, 1)
    small = resize(large, 8, 8).astype(int)
    assert abs(small.mean() - large.mean()) < 3
    assert np.corrcoef(small.ravel(), noise((8, 8, 3)).ravel())[0, 1] > 0.9


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    scale=st.sampled_from([(0.08, 1.0), (0.9, 1.0), (1.0, 1.0)]),
    seed=st.integers(0, 99),
)
def test_crops_stay_within_the_image(height, width, scale, seed):
    crop = random_resized_crop(ramp(height, width), 7, rng(seed), scale)
    assert crop.shape == (7, 7, 3)
    # Black from outside would darken the last channel; rows and columns keep their order.
    np.testing.assert_equal(crop[..., 2], 255)
    assert (np.diff(crop[..., 0].astype(int), axis=0) >= 0).all()
    assert (np.diff(crop[..., 1].astype(int), axis=1) >= 0).all()


def test_crops_cover_the_asked_areas_and_ratios():
    image = ramp(200, 200)
    areas, ratios = [], []
    for seed in range(300):
        crop = random_resized_crop(image, 50, rng(seed), (0.25, 0.5)).astype(int)
        height, width = (np.ptp(crop[..., axis]) * 50 / 49 for axis in (0, 1))
        areas.append(height * width / 200**2)
        ratios.append(width / height)
    assert 0.23 < min(areas) < 0.27
    assert 0.48 < max(areas) < 0.52
    assert 0.73 < min(ratios) < 0.78
    assert 1.28 < max(ratios) < 1.37


@pytest.mark.parametrize(("height", "width"), [(1, 100), (100, 1), (10, 100), (100, 10)])
def test_what_fits_no_crop_gives_its_middle(height, width):
    image = ramp(height, width)
    crop = random_resized_crop(image, 5, rng(), (0.9, 1.0))
    part_height, part_width = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    top, left = (height - part_height) // 2, (width - part_width) // 2
    part = image[top : top + part_height, left : left + part_width]
    np.testing.assert_equal(crop, resize(part, 5, 5))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flips_are_involutions(shape):
    image = noise(shape)
    np.testing.assert_equal(flip(flip(image)), image)
    np.testing.assert_equal(flip(image)[:, 0], image[:, -1])


def test_shifts():
    image = noise((4, 4, 3)) | 1
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    possible = {
        padded[top : top + 4, left : left + 4].tobytes() for top in range(5) for left in range(5)
    }
    assert {random_shift(image, 2, rng(seed)).tobytes() for seed in range(300)} == possible
    np.testing.assert_equal(random_shift(image, 0, rng()), image)


def test_erasing():
    image = np.zeros((32, 32, 3), np.uint8)
    assert random_erasing(image, rng(), 0.0) is image
    areas = []
    for seed in range(200):
        erased = random_erasing(image, rng(seed), 0.5).any(2)
        rows, columns = erased.any(1), erased.any(0)
        # It is one whole box.
        assert erased.sum() == rows.sum() * columns.sum()
        areas.append(erased.mean())
    areas = np.array(areas)
    assert 0.4 < (areas > 0).mean() < 0.6
    assert 0.01 < areas[areas > 0].min() < 0.05
    assert 0.28 < areas.max() < 0.35
    erased = random_erasing(image, rng(3), 1.0, scale=(0.3, 0.3))
    filled = erased[erased.any(2)]
    assert len(np.unique(filled)) > 100
    assert not image.any()


def test_mixup():
    first, second = noise((6, 5, 3)), noise((6, 5, 3), seed=1)
    np.testing.assert_equal(mixup(first, second, 1.0), first)
    np.testing.assert_equal(mixup(first, second, 0.0), second)
    mixed = mixup(first, second, 0.3)
    assert mixed.dtype == np.uint8
    np.testing.assert_allclose(mixed, 0.3 * first + 0.7 * second, atol=0.501)


@given(share=st.floats(0, 1))
def test_mixup_of_equal_images_is_identity(share):
    every_value = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_equal(mixup(every_value, every_value, share), every_value)


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_cutmix_leaves_exactly_the_share(height, width, share, seed):
    first, second = np.zeros((height, width, 1), np.uint8), np.ones((height, width, 1), np.uint8)
    box, exact = cut_box(height, width, share, rng(seed))
    mixed = cutmix(first, second, box)
    assert 1 - mixed.mean() == pytest.approx(exact, abs=1e-12)
    assert 0 <= exact <= 1
    # The rest of the box may lie outside of the image; rounding a side adds half a pixel.
    side = np.sqrt(1 - share)
    assert 1 - exact <= (side + 0.5 / height) * (side + 0.5 / width) + 1e-9
    assert not first.any()


def test_cut_boxes_lie_anywhere():
    counts = np.zeros((16, 16))
    for seed in range(2000):
        box, _ = cut_box(16, 16, 0.9375, rng(seed))
        box.pixels(counts)[:] += 1
    # Wholly inside, sixteen places have a pixel in their box of 4 x 4: one of sixteen boxes.
    assert counts[3:13, 3:13].mean() == pytest.approx(2000 / 16, rel=0.05)
    assert counts.min() > 0


def test_cutmix_takes_the_box_from_the_same_place():
    first, second = noise((6, 7, 3)), noise((6, 7, 3), seed=1)
    mixed = cutmix(first, second, Box(1, 2, 3, 4))
    np.testing.assert_equal(mixed[1:4, 2:6], second[1:4, 2:6])
    mixed[1:4, 2:6] = first[1:4, 2:6]
    np.testing.assert_equal(mixed, first)


WITHOUT_MAGNITUDE = {"auto_contrast", "equalize"}


@pytest.fixture
def only(monkeypatch):
    """Leaves one change to draw from."""

    def only(name):
        monkeypatch.setattr(rand_augment_module, "CHANGES", {name: CHANGES[name]})

    return only


def test_there_are_fourteen_changes():
    assert len(CHANGES) == 14


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - WITHOUT_MAGNITUDE))
def test_magnitude_0_changes_nothing(only, name):
    only(name)
    for seed, shape in enumerate(SHAPES):
        image = noise(shape)
        np.testing.assert_equal(rand_augment(image, 3, 0.0, rng(seed)), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_change_does_something_and_has_two_signs(only, name, channels):
    only(name)
    image = (40 + noise((24, 32, channels)) // 2).astype(np.uint8)
    changed = {rand_augment(image, 1, 8.0, rng(seed)).tobytes() for seed in range(20)}
    if name == "identity" or (name == "color" and channels == 1):
        assert changed == {image.tobytes()}
    else:
        one_way = WITHOUT_MAGNITUDE | {"posterize", "solarize"}
        assert len(changed) == (1 if name in one_way else 2)
        assert image.tobytes() not in changed


def test_higher_magnitudes_change_more():
    image = resize(noise((4, 4, 3)), 32, 32)
    changes = [
        np.mean(
            [abs(rand_augment(image, 2, m, rng(seed)) - image.astype(int)) for seed in range(60)]
        )
        for m in (1.0, 4.0, 10.0)
    ]
    assert changes == sorted(changes)


def test_translations_and_shears_move_pixels(only):
    only("translate_x")
    image = np.zeros((5, 331, 1), np.uint8)
    image[:, 165] = 255
    moved = {int(rand_augment(image, 1, 10.0, rng(seed))[2].argmax()) for seed in range(20)}
    assert moved == {15, 315}


def test_rotations_turn_about_the_middle(only):
    only("rotate")
    image = np.zeros((31, 31, 1), np.uint8)
    image[15, 15] = 255
    for seed in range(4):
        assert rand_augment(image, 1, 10.0, rng(seed))[15, 15, 0] > 200


@pytest.mark.parametrize("axis", [0, 1])
def test_shears_leave_the_middle(only, axis):
    only("shear_x" if axis == 0 else "shear_y")
    image = np.zeros((41, 41), np.uint8)
    image[:, 20] = 255
    ends = set()
    for seed in range(8):
        # A line across the rows that are moved; 20 rows from the middle it has moved by 6.
        sheared = rand_augment(np.moveaxis(image, axis, 0)[..., None], 1, 10.0, rng(seed))
        line = np.moveaxis(sheared[..., 0], 0, axis).argmax(1)
        assert line[20] == 20
        ends.add((int(line[0]), int(line[-1])))
    assert ends == {(14, 26), (26, 14)}


def test_changes_follow_one_another(only):
    only("posterize")
    assert set(np.unique(rand_augment(noise((9, 9, 1)), 2, 10.0, rng()))) <= set(range(0, 256, 16))


def test_no_changes():
    image = noise((5, 6, 3))
    np.testing.assert_equal(rand_augment(image, 0, 9.0, rng()), image)
