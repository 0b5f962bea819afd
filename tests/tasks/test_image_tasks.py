"""The losses of jobs on images, by hand."""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.composition import with_fields
from transformer.data.images.batches import Augmentation, ImageRows
from transformer.data.images.preparation import Preparation
from transformer.data.images.reading import ArrayImages, LabelledImages
from transformer.data.order import Batches, InOrder
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.vit import ViT
from transformer.ops.patches import patchify
from transformer.tasks.image_classification import ImageClassification
from transformer.tasks.masked_images import MaskedImages
from transformer.tasks.parts.images import ImageData
from transformer.tasks.parts.labels import load_labels
from transformer.tasks.parts.outputs import apply

MODEL = ViT(
    num_outputs=3,
    channels=1,
    image_size=8,
    patch_size=4,
    num_layers=1,
    num_heads=2,
    width=8,
    pooling="mean",
    decoder_layers=1,
    decoder_width=8,
    decoder_heads=2,
)
PREPARATION = Preparation(image_size=8, mean=(0.3,), std=(0.5,))
SIZE = {"batch_size": 4, "preparation": PREPARATION}
RANDOM = np.random.default_rng(0)
BATCH = {
    "images": RANDOM.integers(0, 256, (4, 8, 8, 1)).astype(np.uint8),
    "labels": np.array([0, 2, 1, 0], np.int32),
    "other_labels": np.array([0, 1, 1, 0], np.int32),
    "shares": np.array([1.0, 0.25, 1.0, 1.0], np.float32),
    "valid": np.array([1, 1, 1, 0], np.int32),
}


def both(model, images, order):
    model.classify(images)
    return model.reconstruct(images, order, 1)


@pytest.fixture(scope="module")
def params():
    class All:
        init = functools.partial(MODEL.init, method=both)

    return noisy_parameters(All, jnp.zeros((1, 8, 8, 1)), jnp.arange(4)[None])


@functools.partial(jax.jit, static_argnums=0)
def compiled(task, params, batch, rngs):
    return task.losses(MODEL, params, batch, rngs)


@jax.jit
def reconstructed(params, images, order):
    return MODEL.apply({"params": params}, images, order, 2, method="reconstruct")


def arrays(batch):
    return {name: jnp.asarray(value) for name, value in batch.items()}


def test_pixels_are_normalized():
    preparation = Preparation(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    found = preparation.normalized(np.full((1, 2, 2, 3), 51, np.uint8))
    np.testing.assert_allclose(found[0, 0, 0], [0.2, 0.0, -0.05], atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_images_have_two_classes(params, smoothing):
    task = with_fields(ImageClassification(), **SIZE, label_smoothing=smoothing)
    pixels = (BATCH["images"] / 255.0 - 0.3) / 0.5
    scores = np.asarray(apply(MODEL, "classify", params, jnp.float32(pixels)), float)
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    wanted = np.eye(3)[[0, 2, 1]] * BATCH["shares"][:3, None]
    wanted += np.eye(3)[[0, 1, 1]] * (1 - BATCH["shares"][:3, None])
    losses = compiled(task, params, arrays(BATCH), {})
    nll = -(wanted * logs[:3]).sum()
    smooth = wanted * (1 - smoothing) + smoothing / 3
    np.testing.assert_allclose(losses.metrics["loss"], nll, rtol=1e-5)
    np.testing.assert_allclose(losses.objective, -(smooth * logs[:3]).sum(), rtol=1e-5)
    assert losses.weight == 3
    assert losses.metrics["accuracy"] == (scores[:3].argmax(-1) == [0, 2, 1]).sum()


def test_classes_each_by_itself(params):
    task = with_fields(ImageClassification(), **SIZE, multi_label=True)
    pixels = task.images.preparation.normalized(BATCH["images"])
    scores = np.asarray(apply(MODEL, "classify", params, pixels), float)[:3]
    truth = np.eye(3)[[0, 2, 1]] * BATCH["shares"][:3, None]
    truth += np.eye(3)[[0, 1, 1]] * (1 - BATCH["shares"][:3, None])
    probabilities = 1 / (1 + np.exp(-scores))
    np.testing.assert_allclose(task.probabilities(scores), probabilities, rtol=1e-6)
    errors = truth * np.log(probabilities) + (1 - truth) * np.log(1 - probabilities)
    losses = compiled(task, params, arrays(BATCH), {})
    np.testing.assert_allclose(losses.objective, -errors.mean(-1).sum(), rtol=1e-5)
    np.testing.assert_allclose(losses.metrics["loss"], losses.objective)
    assert losses.weight == 3
    with pytest.raises(ConfigError, match="label_smoothing"):
        require_allowed(
            "task",
            with_fields(ImageClassification(), **SIZE, multi_label=True, label_smoothing=0.1),
        )


def test_what_is_shown_tells_classes_of_one_name_apart(params, tmp_path):
    images = dataclasses.replace(data(6, 3), names=("crane", "dog", "crane"))
    task = with_fields(ImageClassification(), **SIZE)
    both = ImageData(task.images, images, images)
    both.save(tmp_path)
    shown = task.show(MODEL, params, both, tmp_path)
    assert load_labels(tmp_path) == images.names
    rows = [json.loads(row) for row in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    names = ["crane (0)", "dog", "crane (2)"]
    assert [row["label"] for row in rows] == [names[label] for label in images.labels]
    for row in rows:
        assert set(row["probabilities"]) == set(names)
        assert row["predicted"] == names[row["class"]]
    assert "crane (0)" in shown.text
    assert (tmp_path / "confusion.png").stat().st_size > 1000


@pytest.mark.parametrize("normalize", [False, True])
def test_only_hidden_patches_count(params, normalize):
    task = with_fields(MaskedImages(), **SIZE, masking_rate=0.5, normalize_patches=normalize)
    images = task.images.preparation.normalized(BATCH["images"])
    order = np.argsort(jax.random.uniform(jax.random.key(0), (4, 4)), axis=1)
    found = reconstructed(params, images, jnp.asarray(order))
    patches = np.asarray(patchify(images, 4), float)
    if normalize:
        patches -= patches.mean(-1, keepdims=True)
        patches /= np.sqrt((patches**2).mean(-1, keepdims=True) + 1e-6)
    errors = ((np.asarray(found, float) - patches) ** 2).mean(-1)
    expected = sum(errors[row, place] for row in range(3) for place in order[row, 2:])
    losses = compiled(task, params, arrays(BATCH), {})
    np.testing.assert_allclose(losses.objective, expected, rtol=1e-5)
    assert losses.weight == 6
    again = compiled(task, params, arrays(BATCH), {})
    assert again.objective == losses.objective
    drawn = compiled(task, params, arrays(BATCH), {"dropout": jax.random.key(1)})
    assert drawn.objective != losses.objective


@pytest.mark.parametrize(
    "task",
    [
        with_fields(ImageClassification(), **SIZE),
        with_fields(MaskedImages(), **SIZE, masking_rate=0.5),
    ],
    ids=str,
)
def test_rows_that_fill_up_a_batch_count_for_nothing(params, task):
    images = ImageRows(
        ArrayImages(BATCH["images"][:3]), BATCH["labels"][:3], task.images.preparation
    )
    few = Batches(images, InOrder(3, 3))
    filled = few.of_host(0, 1, multiple=4)
    assert filled[0]["valid"].tolist() == [1, 1, 1, 0]
    found, expected = (compiled(task, params, batches[0], {}) for batches in (filled, few))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_tokens_that_see_their_neighbours_are_refused():
    task = with_fields(MaskedImages(), **SIZE)
    with pytest.raises(ConfigError, match="convolutions"):
        task.check_model(MODEL.clone(stem="convolutions"))


def data(count, classes):
    images = RANDOM.integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(count, dtype=np.int32) % classes
    names = tuple(f"class {index}" for index in range(classes))
    return LabelledImages(ArrayImages(images), labels, names, "digest", ())


def test_a_fraction_has_all_classes():
    whole = data(90, 3)
    some = whole.part(0.1, seed=0)
    assert len(some.source) == len(some.labels) == 9
    assert np.bincount(some.labels).tolist() == [3, 3, 3]
    for index in range(9):
        same = (whole.source.array == some.source[index]).all((1, 2, 3))
        assert whole.labels[same].tolist() == [some.labels[index]]
    other = whole.part(0.1, seed=1)
    assert other.digest != some.digest != whole.digest
    assert whole.part(0.1, seed=0).digest == some.digest


def test_a_fraction_of_arrays_stays_an_array(monkeypatch):
    """Nothing is read one by one, by no thread; channels that share their memory go on to."""
    whole = data(90, 3)
    shared = np.broadcast_to(whole.source.array, (90, 8, 8, 3))
    some = dataclasses.replace(whole, source=ArrayImages(shared)).part(0.1, seed=0)
    np.testing.assert_array_equal(some.source.array[..., 2:], whole.part(0.1, seed=0).source.array)
    assert some.source.array.strides[-1] == 0
    task = with_fields(ImageClassification(), **SIZE, label_fraction=0.1)
    batches: Any = ImageData(task.images, some, some).train_batches(seed=0, num_steps=1)
    monkeypatch.setattr(ArrayImages, "__getitem__", None)
    assert batches[0]["images"].shape == (4, 8, 8, 3)


def test_neighbours_know_the_images_they_have_seen(params):
    images = data(12, 3)
    task = with_fields(ImageClassification(), **SIZE)
    found = ImageData(task.images, images, images).neighbor_scores(MODEL, params, 1)
    assert found == {"neighbor_accuracy": 1.0}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"preparation": Preparation(std=(0.0,))}, "config.task.preparation.std"),
        ({"preparation": Preparation(mean=(0.1, 0.2))}, "config.task.preparation.mean"),
        ({"channels": 4}, "config.task.channels"),
        ({"broken": "mend"}, "config.task.broken"),
        ({"embedded": "cats"}, "digits"),
        ({"preparation": Preparation(crop_fraction=0.0)}, "preparation.crop_fraction"),
        ({"label_fraction": 0.0}, "config.task.label_fraction"),
        ({"validation_path": "x"}, "config.task.path"),
    ],
)
def test_values_that_cannot_work(fields, said):
    with pytest.raises(ConfigError, match=said):
        require_allowed("task", with_fields(ImageClassification(), **{**SIZE, **fields}))


@pytest.mark.parametrize("kind", [ImageClassification, MaskedImages])
def test_the_device_augments_in_training_alone(kind, params):
    batch = {name: jnp.asarray(values) for name, values in BATCH.items()}
    task = with_fields(kind(), **SIZE)
    on_device = with_fields(task, augmentation=Augmentation(shift=3, on_device=True))

    @functools.partial(jax.jit, static_argnames="task")
    def objective(task, batch, rngs):
        return task.losses(MODEL, params, batch, rngs).objective

    assert objective(on_device, batch, {}) == objective(task, batch, {})
    rngs = {"dropout": jax.random.key(1)}
    changed = jax.jit(on_device.images.augmented)(batch, rngs)
    np.testing.assert_array_equal(batch["labels"], changed["labels"])
    assert not np.array_equal(batch["images"], changed["images"])
    np.testing.assert_allclose(
        objective(on_device, batch, rngs), objective(task, changed, rngs), rtol=1e-6
    )
