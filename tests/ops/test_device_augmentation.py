"""Changes of images on the device against those on the host, and what their random numbers do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.data.images.augmentation import Box, cutmix, from_pillow, to_pillow
from transformer.data.images.batches import Augmentation
from transformer.data.images.rand_augment import CHANGES as ON_HOST
from transformer.ops import augmentation
from transformer.ops.image_changes import CHANGES, changed

STRENGTHS = (-0.9, -0.35, 0.0, 0.5, 0.9)
_changed = jax.jit(changed)
# All but the key and the images are constants.
random_flip = jax.jit(augmentation.random_flip)
random_shift = jax.jit(augmentation.random_shift, static_argnums=2)
random_mix = jax.jit(augmentation.random_mix, static_argnums=(2, 3))
random_erasing = jax.jit(augmentation.random_erasing, static_argnums=2)
cut_box = jax.jit(augmentation._cut_box, static_argnums=(2, 3))


def pictures(channels):
    """Noise, and a slope that has few values."""
    noise = np.random.default_rng(0).integers(256, size=(24, 24, channels), dtype=np.uint8)
    rows, columns = np.mgrid[:24, :24]
    slope = (40 + (rows * 3 + columns * 2) % 180).astype(np.uint8)
    return [noise, np.repeat(slope[..., None], channels, axis=2)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_that_of_pillow(name, channels):
    cases = [(image, strength) for image in pictures(channels) for strength in STRENGTHS]
    expected = [from_pillow(ON_HOST[name](to_pillow(image), s)) for image, s in cases]
    found = _changed(
        jnp.asarray(np.stack([image for image, _ in cases]), jnp.float32),
        jnp.full(len(cases), CHANGES.index(name)),
        jnp.asarray([strength for _, strength in cases]),
    )
    np.testing.assert_allclose(found, np.stack(expected).astype(np.float32), atol=1.0)


def test_host_and_device_have_the_same_changes():
    assert tuple(ON_HOST) == CHANGES


@pytest.fixture(scope="module")
def noise():
    values = np.random.default_rng(1).integers(1, 256, size=(64, 8, 6, 3))
    return jnp.asarray(values, jnp.float32)


def test_flip_exchanges_left_and_right_in_half_of_the_images(noise):
    found = np.asarray(random_flip(jax.random.key(0), noise))
    same = (found == np.asarray(noise)).all((1, 2, 3))
    mirrored = (found == np.asarray(noise)[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 20 < same.sum() < 44


def test_shift_moves_images_by_whole_pixels_and_fills_with_black(noise):
    found = np.asarray(random_shift(jax.random.key(0), noise, 2))
    padded = np.pad(np.asarray(noise), ((0, 0), (2, 2), (2, 2), (0, 0)))
    distances = set()
    for image, wide in zip(found, padded, strict=True):
        fits = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if (wide[y : y + 8, x : x + 6] == image).all()
        ]
        assert len(fits) == 1
        distances.update(fits)
    assert len(distances) > 15


@pytest.mark.parametrize("mixup, cut", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_images_hold_the_shares_that_are_told(noise, mixup, cut):
    mixed = random_mix(jax.random.key(0), noise, mixup, cut)
    images, shares, before = map(np.asarray, (mixed.images, mixed.shares, noise))
    assert ((shares >= 0) & (shares <= 1)).all()
    assert len(np.unique(shares)) > 12
    kinds = set()
    for place, image in enumerate(images):
        first, second = before[place], before[int(mixed.others[place])]
        assert int(mixed.others[place]) != place
        taken = (image == second).all(-1)
        # A blended image with nearly all of one share is rounded to that image.
        if (taken | (image == first).all(-1)).all() and 0.01 < shares[place] < 0.99:
            assert 1 - taken.mean() == pytest.approx(shares[place], abs=1e-6)
            rows, columns = np.flatnonzero(taken.any(1)), np.flatnonzero(taken.any(0))
            assert taken.sum() == len(rows) * len(columns)
            kinds.add("cut")
        else:
            expected = shares[place] * first + (1 - shares[place]) * second
            np.testing.assert_allclose(image, expected, atol=0.51)
            kinds.add("blended")
    assert kinds == {kind for kind, alpha in (("blended", mixup), ("cut", cut)) if alpha}


def test_shares_are_distributed_as_asked():
    images = jnp.zeros((2000, 8, 8, 1))
    blended = random_mix(jax.random.key(0), images, 0.2, 0.0).shares
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)): here 0.179, and 0.083 if a were 1.
    assert np.var(blended) == pytest.approx(1 / 5.6, abs=0.01)
    # Of Beta(0.2, 0.2) 34 percent are above 0.9, and 10 if a were 1; at edges boxes are smaller.
    cut = random_mix(jax.random.key(0), images, 0.0, 0.2).shares
    assert np.mean(cut > 0.9) > 0.3


def test_a_cut_box_is_the_one_of_the_host(noise):
    """A box of CutMix, put in by the host, is what the device has."""
    mixed = random_mix(jax.random.key(3), noise, 0.0, 1.0)
    first = np.asarray(noise, np.uint8)
    for place in range(8):
        image, second = np.asarray(mixed.images[place], np.uint8), first[int(mixed.others[place])]
        taken = (image == second).all(-1)
        rows, columns = np.flatnonzero(taken.any(1)), np.flatnonzero(taken.any(0))
        if not len(rows):
            continue
        box = Box(int(rows[0]), int(columns[0]), len(rows), len(columns))
        np.testing.assert_equal(image, cutmix(first[place], second, box))


def test_a_cut_box_has_its_centre_anywhere():
    """Half of each side: 8 of 16 rows from 4 before the centre, clipped at both ends."""
    boxes = cut_box(jax.random.key(0), jnp.full(4000, 0.75), 16, 16)
    found = np.asarray(boxes).any(2).mean(0)
    expected = [min(row + 4, 15) - max(row - 3, 0) + 1 for row in range(16)]
    np.testing.assert_allclose(found, np.array(expected) / 16, atol=0.04)


def test_erasing_puts_one_box_of_noise_into_some_images():
    images = jnp.full((400, 16, 16, 1), -1.0)
    found = np.asarray(random_erasing(jax.random.key(0), images, 0.25))
    erased = (found >= 0)[..., 0]
    struck = erased.any((1, 2))
    assert 0.18 < struck.mean() < 0.32
    ratios = []
    for box in erased[struck]:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns)
        ratios.append(len(columns) / len(rows))
        assert 0.005 < box.mean() < 0.4
    # From 0.3 to its inverse.
    assert min(ratios) < 0.45
    assert max(ratios) > 2.2
    assert len(np.unique(found)) > 200


@pytest.mark.parametrize("shape", [(1, 8), (8, 1)])
def test_boxes_may_be_as_large_as_the_image_and_are_inside(shape):
    images = jnp.full((200, *shape, 1), -1.0)
    found = np.asarray(random_erasing(jax.random.key(0), images, 1.0))
    assert np.mean((found >= 0).any((1, 2, 3))) > 0.9


def batch(images, valid=None):
    count = len(images)
    labels = jnp.arange(count, dtype=jnp.int32)
    return {
        "images": jnp.asarray(images, jnp.uint8),
        "labels": labels,
        "other_labels": labels,
        "shares": jnp.ones(count),
        "valid": jnp.ones(count, jnp.int32) if valid is None else jnp.asarray(valid, jnp.int32),
    }


def test_a_batch_is_mixed_with_its_labels_but_not_with_padding(noise):
    valid = np.ones(64, np.int32)
    valid[10:20] = 0
    found = Augmentation(on_device=True, mixup=1.0).changed(batch(noise, valid), jax.random.key(0))
    others, shares = np.asarray(found["other_labels"]), np.asarray(found["shares"])
    after_padding = np.roll(valid, 1) == 0
    np.testing.assert_equal(others[after_padding], np.arange(64)[after_padding])
    np.testing.assert_equal(shares[after_padding], 1.0)
    images = np.asarray(found["images"])
    np.testing.assert_equal(images[after_padding], np.asarray(noise)[after_padding])
    np.testing.assert_equal(others[~after_padding], (np.arange(64) - 1)[~after_padding] % 64)
    assert (shares[~after_padding] < 1.0).all()


@pytest.mark.parametrize("changes", [{}, {"on_device": True}, {"flip": True, "shift": 1}])
def test_what_the_host_does_the_device_leaves_alone(noise, changes):
    before = batch(noise)
    after = Augmentation(**changes).changed(before, jax.random.key(0))
    assert after is before


def test_the_host_only_crops_what_the_device_changes():
    asked = Augmentation(resized_crop=0.5, flip=True, mixup=0.2, erasing=0.1, on_device=True)
    assert asked.on_host == Augmentation(resized_crop=0.5)
    assert not Augmentation(flip=True, on_device=True).on_host.changes
    plain = Augmentation(flip=True, shift=3)
    assert plain.on_host is plain


def test_each_image_gets_one_of_all_changes_in_either_direction(monkeypatch):
    asked = []

    def noted(images, changes, strengths):
        asked.append(np.stack([changes, strengths]))
        return images + 1.0

    monkeypatch.setattr(augmentation, "changed", noted)
    images = jnp.zeros((200, 1, 1, 1))
    found = augmentation.rand_augment(jax.random.key(0), images, 3, 4.0)
    # One after the other, each drawn anew.
    np.testing.assert_array_equal(found, 3.0)
    assert len({row.tobytes() for row in asked}) == 3
    changes, strengths = np.concatenate(asked, axis=1)
    pairs = {(name, sign) for name in range(len(CHANGES)) for sign in (-1.0, 1.0)}
    assert set(zip(changes.tolist(), np.sign(strengths).tolist(), strict=True)) == pairs
    np.testing.assert_allclose(np.abs(strengths), 0.4)
