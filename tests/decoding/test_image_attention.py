import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters, normal
from transformer.models.vit import ViT
from transformer.nn.compute import Compute
from transformer.pictures import image_attention
from transformer.pictures.image_attention import draw_image_attention, image_attention_weights

L, B, N, GRID = 2, 3, 2, 2
TINY = ViT(
    num_outputs=4,
    channels=3,
    image_size=8,
    patch_size=4,
    num_layers=L,
    num_heads=N,
    width=8,
    feed_forward_width=8,
    num_registers=1,
)
POOLINGS = ("class", "mean", "attention")
IMAGES = normal(np.random.default_rng(0), B, 8, 8, 3)


def tiny(pooling, **fields):
    return TINY.clone(pooling=pooling, num_registers=int(pooling != "mean"), **fields)


@functools.cache
def parameters(pooling):
    model = tiny(pooling)
    made = types.SimpleNamespace(init=functools.partial(model.init, method="classify"))
    return noisy_parameters(made, IMAGES, scale=0.5)


@functools.cache
def weights(pooling):
    return image_attention_weights(tiny(pooling), parameters(pooling), IMAGES)


def softmax_of(attention, queries, keys):
    """Attention weights [B, N, T, S] in plain NumPy."""

    def project(name, x):
        layer = jax.tree.map(np.asarray, attention[name])
        return np.einsum("btd,dnh->bnth", x, layer["kernel"]) + layer["bias"][None, :, None]

    query, key = project("query", queries), project("key", keys)
    logits = np.exp(query @ key.swapaxes(2, 3) / math.sqrt(query.shape[-1]))
    return logits / logits.sum(axis=-1, keepdims=True)


@functools.cache
def states(pooling):
    """What each layer's attention looks at, and the states after the last layer."""
    model, params = tiny(pooling), parameters(pooling)

    def normed(module, _):
        return module.name in ("attention_norm", "final_norm")

    @jax.jit
    def captured(params):
        options = {"capture_intermediates": normed, "mutable": ["intermediates"]}
        return model.apply({"params": params}, IMAGES, **options)[1]["intermediates"]

    found = captured(params)
    layers = [found["blocks"][f"layer_{index}"]["attention_norm"] for index in range(L)]
    return [np.asarray(kept["__call__"][0]) for kept in (*layers, found["final_norm"])]


def looks(pooling, index):
    """Weights [B, N, T, S] of a layer."""
    attention = parameters(pooling)["blocks"][f"layer_{index}"]["attention"]
    return softmax_of(attention, states(pooling)[index], states(pooling)[index])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_weight_for_each_layer_image_and_patch(pooling):
    found = weights(pooling)
    assert found.shape == (L, B, GRID, GRID)
    assert (found > 0).all()
    sums = found.sum(axis=(2, 3))
    if pooling == "mean":
        # There are only patches to look at.
        np.testing.assert_allclose(sums, 1.0, atol=1e-5)
    else:
        assert (sums < 0.999).all()


def test_the_class_token_looks():
    for index in range(L):
        # It stands first, the register second.
        expected = looks("class", index)[:, :, 0, 2:].mean(axis=1).reshape(B, GRID, GRID)
        np.testing.assert_allclose(weights("class")[index], expected, atol=1e-5)


@pytest.mark.parametrize(("pooling", "index"), [("mean", 0), ("mean", 1), ("attention", 0)])
def test_patches_look_where_there_is_no_class_token(pooling, index):
    front = tiny(pooling).num_front
    rows = looks(pooling, index)[:, :, front:, front:]
    expected = rows.mean(axis=(1, 2)).reshape(B, GRID, GRID)
    np.testing.assert_allclose(weights(pooling)[index], expected, atol=1e-5)


def test_the_query_looks_in_the_place_of_the_last_layer():
    pooler = parameters("attention")["pooler"]
    last = states("attention")[-1]
    query = np.tile(np.asarray(pooler["query"]), (B, 1, 1))
    expected = softmax_of(pooler["attention"], query, last)[:, :, 0, 1:].mean(axis=1)
    found = weights("attention")[-1]
    np.testing.assert_allclose(found, expected.reshape(B, GRID, GRID), atol=1e-5)


def test_scanned_is_unrolled():
    params = parameters("class")
    layers = [params["blocks"][f"layer_{index}"] for index in range(L)]
    together = {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
    scanned = image_attention_weights(
        tiny("class", compute=Compute(scan_layers=True)), {**params, "blocks": together}, IMAGES
    )
    np.testing.assert_allclose(scanned, weights("class"), atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "num_layers", "shown"), [(1, 5, [0, 2, 4]), (3, 2, [0, 1]), (3, 1, [0])]
)
def test_the_picture(tmp_path, monkeypatch, channels, num_layers, shown):
    from matplotlib.axes import Axes

    drawn, image, title = {"images": [], "titles": [], "rows": []}, Axes.imshow, Axes.set_title
    label = Axes.set_ylabel
    monkeypatch.setattr(
        Axes, "imshow", lambda *a, **k: drawn["images"].append(a[1]) or image(*a, **k)
    )
    monkeypatch.setattr(
        Axes, "set_title", lambda *a, **k: drawn["titles"].append(a[1]) or title(*a, **k)
    )
    monkeypatch.setattr(
        Axes, "set_ylabel", lambda *a, **k: drawn["rows"].append(a[1]) or label(*a, **k)
    )
    rng = np.random.default_rng(1)
    maps = rng.uniform(size=(num_layers, B, GRID, GRID)).astype(np.float32)
    monkeypatch.setattr(image_attention, "image_attention_weights", lambda *_: maps)
    pixels = rng.integers(0, 256, (B, 8, 8, channels), dtype=np.uint8)
    captions = ["cat", "$dog$", "owl, taken for cat"]
    path = tmp_path / "attention.png"
    draw_image_attention(TINY, {}, jnp.asarray(pixels, jnp.float32), pixels, captions, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert drawn["titles"] == captions
    assert drawn["rows"] == ["image", *(f"layer {index + 1}" for index in shown)]
    # An image and, below it, what layers look at.
    rows = 1 + len(shown)
    assert len(drawn["images"]) == B * rows
    for column in range(B):
        first, *others = drawn["images"][column * rows : (column + 1) * rows]
        np.testing.assert_array_equal(first.reshape(pixels[column].shape), pixels[column])
        np.testing.assert_array_equal(others, maps[shown, column])
