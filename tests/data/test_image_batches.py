import functools
import pickle

import numpy as np
import pytest

from transformer.data.images.batches import Augmentation, ImageRows
from transformer.data.images.labelled import ArrayImages
from transformer.data.images.preparation import Preparation
from transformer.data.order import Batches, Epochs, InOrder
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed

COUNT, SIZE = 21, 8


class Listed:
    """Images one by one, as if read from files."""

    def __init__(self, images):
        self.images = images
        self.asked = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.images[index]

    def name(self, index):
        return str(index)

    def some(self, chosen):
        return Listed([self.images[index] for index in chosen])


def as_array(images):
    """All at once."""
    return ArrayImages(np.stack(images))


def images(channels=1, ragged=False, seed=0):
    generator = np.random.default_rng(seed)
    sides = generator.integers(4, 14, (COUNT, 2)) if ragged else np.full((COUNT, 2), SIZE)
    made = [
        generator.integers(256, size=(*side, channels), dtype=np.uint8) for side in sides.tolist()
    ]
    for image in made:
        image.flags.writeable = False
    return made


LABELS = np.arange(COUNT) * 7 % 10
PREPARATION = Preparation(SIZE)

AUGMENTATIONS = {
    "none": Augmentation(),
    "crop": Augmentation(resized_crop=0.3),
    "flip": Augmentation(flip=True),
    "shift": Augmentation(shift=2),
    "rand_augment": Augmentation(rand_augment_ops=2),
    "mixup": Augmentation(mixup=0.8),
    "cutmix": Augmentation(cutmix=1.0),
    "erasing": Augmentation(erasing=0.5),
    "all": Augmentation(
        resized_crop=0.3,
        flip=True,
        shift=1,
        rand_augment_ops=1,
        mixup=0.8,
        cutmix=1.0,
        erasing=0.5,
    ),
}


def rows_of(source, augmentation, preparation=PREPARATION, labels=LABELS, num_threads=0):
    source = Listed(images()) if source is None else source
    return ImageRows(source, labels, preparation, augmentation, num_threads)


def shuffled(
    source=None,
    augmentation=AUGMENTATIONS["all"],
    *,
    batch_size=6,
    seed=3,
    num_steps=12,
    **options,
):
    rows = rows_of(source, augmentation, **options)
    return Batches(rows, Epochs(len(rows), batch_size, seed, num_steps))


def sequential(source=None, *, batch_size=6, **options):
    rows = rows_of(source, Augmentation(), **options)
    return Batches(rows, InOrder(len(rows), batch_size))


def concatenated(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def check_form(batch, rows, channels):
    assert {name: (array.dtype.name, array.shape) for name, array in batch.items()} == {
        "images": ("uint8", (rows, SIZE, SIZE, channels)),
        "labels": ("int32", (rows,)),
        "other_labels": ("int32", (rows,)),
        "shares": ("float32", (rows,)),
        "valid": ("int32", (rows,)),
    }
    assert (batch["shares"] >= 0).all()
    assert (batch["shares"] <= 1).all()


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_batch_is_a_function_of_seed_and_step(kind, channels, num_threads):
    source = images(channels, ragged=True)
    batches = shuffled(Listed(source), AUGMENTATIONS[kind])
    expected = [batches[step] for step in range(4)]
    for batch in expected:
        check_form(batch, 6, channels)
        assert batch["valid"].all()
    alone = shuffled(Listed(source), AUGMENTATIONS[kind], num_threads=num_threads)
    np.testing.assert_equal(alone[np.int64(2)], expected[2])
    other = shuffled(Listed(source), AUGMENTATIONS[kind], seed=4)[2]
    assert not np.array_equal(other["images"], expected[2]["images"])


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_slices_of_hosts_make_up_the_batch(kind):
    source = images(ragged=True)
    whole = shuffled(Listed(source), AUGMENTATIONS[kind])
    for num_hosts in (2, 3):
        hosts = [whole.of_host(host, num_hosts) for host in range(num_hosts)]
        for step in (0, 5):
            np.testing.assert_equal(concatenated([host[step] for host in hosts]), whole[step])


def not_one_by_one(self, index):
    raise AssertionError("an array is read at once.")


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_an_array_gives_the_same_batches(monkeypatch, kind):
    one_by_one, array = Listed(images(3)), as_array(images(3))
    if kind == "none":
        monkeypatch.setattr(ArrayImages, "__getitem__", not_one_by_one)
    for step in (0, 4):
        np.testing.assert_equal(
            shuffled(array, AUGMENTATIONS[kind])[step],
            shuffled(one_by_one, AUGMENTATIONS[kind])[step],
        )


def test_an_array_of_another_size_is_resized():
    smaller = {"preparation": Preparation(5)}
    for make in (sequential, functools.partial(shuffled, augmentation=Augmentation())):
        batches = [make(source, **smaller)[1] for source in (Listed(images()), as_array(images()))]
        assert batches[0]["images"].shape == (6, 5, 5, 1)
        np.testing.assert_equal(*batches)


def test_epochs_visit_every_image_once():
    source = Listed(images())
    batches = shuffled(source, Augmentation(), batch_size=7, num_steps=6)
    assert len(batches) == 6
    found = concatenated([batches[step] for step in range(6)])
    orders = np.array(source.asked).reshape(2, COUNT)
    for order in orders:
        assert sorted(order) == list(range(COUNT))
    assert orders[0].tolist() != orders[1].tolist()
    # Images and labels belong together, and nothing is mixed.
    np.testing.assert_equal(found["images"], np.stack(source.images)[orders.ravel()])
    np.testing.assert_equal(found["labels"], LABELS[orders.ravel()])
    np.testing.assert_equal(found["other_labels"], found["labels"])
    np.testing.assert_equal(found["shares"], 1)


def test_an_image_changes_from_epoch_to_epoch():
    numbered = np.arange(COUNT)
    batches = shuffled(
        Listed(images()), Augmentation(shift=3), batch_size=COUNT, labels=numbered, num_steps=2
    )
    first, second = (
        batch["images"][np.argsort(batch["labels"])] for batch in (batches[0], batches[1])
    )
    assert np.any(first != second, axis=(1, 2, 3)).sum() > COUNT // 2


def plain(value):
    return np.full((SIZE, SIZE, 1), value, np.uint8)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "both"])
def test_labels_and_shares_say_what_was_mixed(kind):
    # Image i is of one grey, 10 i, so that pixels tell what they were made of.
    source = Listed([plain(10 * index) for index in range(COUNT)])
    augmentation = Augmentation(
        mixup=0.0 if kind == "cutmix" else 0.8, cutmix=0.0 if kind == "mixup" else 1.0
    )
    batches = shuffled(source, augmentation, labels=np.arange(COUNT), num_steps=40)
    found = concatenated([batches[step] for step in range(40)])
    shares, greys = found["shares"], found["images"][..., 0].astype(int)
    first, second = 10 * found["labels"], 10 * found["other_labels"]
    assert len(np.unique(found["other_labels"])) > COUNT // 2
    mean = shares * first + (1 - shares) * second
    np.testing.assert_allclose(greys.mean((1, 2)), mean, atol=0.501)
    cut = np.ptp(greys, axis=(1, 2)) > 0
    of_two = (greys == first[:, None, None]) | (greys == second[:, None, None])
    assert of_two[cut].all()
    if kind == "mixup":
        assert not cut.any()
        # The Beta distribution has its mean in the middle, and its ends are not all it gives.
        assert 0.4 < shares.mean() < 0.6
        assert ((shares > 0.1) & (shares < 0.9)).mean() > 0.5
    else:
        # Some boxes hold all or nothing, or another image of the same grey.
        assert (0.7 if kind == "cutmix" else 0.3) < cut.mean() < (1 if kind == "cutmix" else 0.6)
        kept = (greys == first[:, None, None]).mean((1, 2))
        np.testing.assert_allclose(shares[cut], kept[cut], atol=1e-6)


@pytest.mark.parametrize("least", [0.2, 0.8])
def test_crops_cover_at_least_the_asked_area(least):
    side = 64
    rows, columns = np.mgrid[:side, :side].astype(np.uint8)
    ramps = Listed([np.stack([rows, columns, rows], 2)] * COUNT)
    preparation = Preparation(16)
    changes = Augmentation(resized_crop=least)
    batches = shuffled(ramps, changes, preparation=preparation, batch_size=60)
    found = batches[0]["images"].astype(int)
    height, width = (np.ptp(found[..., axis], axis=(1, 2)) * 16 / 15 for axis in (0, 1))
    areas = height * width / side**2
    assert least - 0.05 < areas.min() < least + 0.1
    assert areas.max() > least + 0.1


def test_the_other_image_is_augmented_for_itself():
    # Only the other image's flips differ if all images are the same and the box is everything.
    ramp = np.broadcast_to(np.arange(SIZE, dtype=np.uint8)[None, :, None], (SIZE, SIZE, 1))
    batches = shuffled(Listed([ramp] * COUNT), Augmentation(flip=True, mixup=50.0), num_steps=10)
    found = concatenated([batches[step] for step in range(10)])["images"]
    slopes = found[:, 0, -1, 0].astype(int) - found[:, 0, 0, 0]
    # Both as they are, both flipped, and one of each: their mean is nearly flat.
    for kind in (slopes == 7, slopes == -7, abs(slopes) < 5):
        assert 0.1 < kind.mean() < 0.7


def test_mixing_leaves_the_first_image_as_it_was():
    # What is drawn for the first image does not depend on what follows.
    plain_flips = shuffled(augmentation=Augmentation(shift=2))[0]["images"]
    mixed = shuffled(augmentation=Augmentation(shift=2, cutmix=1.0))[0]
    kept = (plain_flips == mixed["images"]).mean((1, 2, 3))
    assert (kept >= mixed["shares"] - 1e-6).all()


def test_erasing_comes_after_mixing():
    source = Listed([plain(100)] * COUNT)
    found = shuffled(source, Augmentation(mixup=1.0, erasing=1.0))[0]["images"]
    erased = (found != 100).mean((1, 2, 3))
    # Mixed noise would be near to 100; this is as noisy as it was drawn.
    assert (erased > 0).sum() >= 5
    assert np.ptp(found) > 200


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("array", [False, True])
def test_validation_covers_every_image_once(array, num_threads):
    pixels = images(3, ragged=not array)
    source = as_array(pixels) if array else Listed(pixels)
    batches = sequential(source, num_threads=num_threads)
    assert len(batches) == 4
    parts = [batches[step] for step in range(4)]
    for batch in parts:
        check_form(batch, 6, 3)
    found = concatenated(parts)
    assert found["valid"].tolist() == [1] * COUNT + [0] * 3
    expected = np.stack([PREPARATION.pixels(image) for image in pixels])
    np.testing.assert_equal(found["images"][:COUNT], expected)
    np.testing.assert_equal(found["images"][COUNT:], 0)
    assert found["labels"].tolist() == [*LABELS, 0, 0, 0]
    np.testing.assert_equal(found["other_labels"], found["labels"])
    np.testing.assert_equal(found["shares"], 1)


@pytest.mark.parametrize("num_hosts", [2, 3, 6])
def test_validation_on_several_hosts(num_hosts):
    # Of six hosts some have nothing but rows that are not valid.
    whole = sequential()
    hosts = [whole.of_host(host, num_hosts) for host in range(num_hosts)]
    for step in range(4):
        np.testing.assert_equal(concatenated([host[step] for host in hosts]), whole[step])


def test_validation_keeps_a_fraction():
    source = as_array(images())
    preparation = Preparation(SIZE, crop_fraction=0.75)
    found = sequential(source, preparation=preparation)[0]["images"]
    expected = [preparation.pixels(image) for image in source.array[:6]]
    np.testing.assert_equal(found, np.stack(expected))


def test_errors_of_threads_arrive():
    class Damaged(Listed):
        def __getitem__(self, index):
            raise DataError("it is damaged.")

    with pytest.raises(DataError, match="it is damaged"):
        shuffled(Damaged(images()), num_threads=2)[0]


def test_batches_can_be_copied_after_use():
    batches = shuffled(num_threads=2)
    expected = batches[1]
    np.testing.assert_equal(pickle.loads(pickle.dumps(batches))[1], expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resized_crop", -0.1),
        ("resized_crop", 1.1),
        ("resized_crop", float("nan")),
        ("shift", -1),
        ("rand_augment_ops", -1),
        ("rand_augment_magnitude", -1.0),
        ("rand_augment_magnitude", 10.5),
        ("erasing", 1.5),
        ("erasing", -0.5),
        ("mixup", -1.0),
        ("mixup", float("inf")),
        ("cutmix", -0.2),
        ("cutmix", float("nan")),
    ],
)
def test_values_that_mean_nothing_are_named(field, value):
    augmentation = Augmentation(**{field: value})
    with pytest.raises(ConfigError, match=rf"config\.task\.augmentation\.{field} is {value}"):
        require_allowed("task.augmentation", augmentation)
    with pytest.raises(ConfigError, match=rf"config\.task\.augmentation\.{field}"):
        shuffled(augmentation=augmentation)


def test_extreme_values_are_fine():
    require_allowed(
        "task", Augmentation(resized_crop=1.0, rand_augment_magnitude=10.0, erasing=1.0, mixup=0.01)
    )
    shuffled(augmentation=Augmentation(resized_crop=1.0, shift=SIZE - 1, erasing=1.0))[0]


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ConfigError, match=r"augmentation\.shift is 8: give less than the 8 pixels"):
        shuffled(augmentation=Augmentation(shift=8))
    for make in (shuffled, sequential):
        with pytest.raises(ConfigError, match=r"config\.task\.preparation\.crop_fraction is 1.2"):
            make(preparation=Preparation(SIZE, crop_fraction=1.2))
    for make in (shuffled, sequential):
        with pytest.raises(ConfigError, match=r"batch_size \(6\) does not divide over 4 hosts"):
            make().of_host(0, 4)
        with pytest.raises(DataError, match="20 images and 21 labels"):
            make(Listed(images()[:20]))
