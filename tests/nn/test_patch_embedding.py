import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters, normal
from transformer.nn.patches import STEMS, ConvolutionalStem, PatchEmbedding

IMAGES = normal(np.random.default_rng(0), 2, 8, 16, 3)


def shapes(module, images):
    return nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), images)["params"])


@functools.cache
def stem():
    return noisy_parameters(ConvolutionalStem(4, 16), IMAGES)


@functools.partial(jax.jit, static_argnums=0)
def tokens(module, params, images):
    return module.apply({"params": params}, images)


def test_patches_are_tokens_by_one_dense_layer():
    module = PatchEmbedding(4, 10)
    params = noisy_parameters(module, IMAGES)
    kernel, bias = params["dense"]["kernel"], params["dense"]["bias"]
    assert (kernel.shape, bias.shape) == ((4 * 4 * 3, 10), (10,))
    # The patch in the second row and the third column of 2 x 4.
    found = tokens(module, params, IMAGES)[:, 1 * 4 + 2]
    expected = IMAGES[:, 4:8, 8:12].reshape(2, -1) @ kernel + bias
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("patch_size", [1, 2, 4, 8])
def test_a_token_for_each_patch(name, patch_size):
    module = STEMS[name](patch_size, 12, dtype="bfloat16")
    params = shapes(module, IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    output = jax.eval_shape(module.apply, {"params": params}, IMAGES)
    assert output.shape == (2, 8 * 16 // patch_size**2, 12)
    assert output.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("patch_size", "width", "channels"),
    [
        (16, 192, [12, 24, 48, 96]),
        (16, 16, [8, 8, 8, 8]),
        (4, 64, [16, 32]),
        (1, 64, []),
    ],
)
def test_each_convolution_has_twice_the_channels(patch_size, width, channels):
    params = shapes(ConvolutionalStem(patch_size, width), jnp.zeros((1, 32, 32, 3)))
    found = [params[f"convolution_{index}"]["kernel"].shape for index in range(len(channels))]
    assert found == [(3, 3, *pair) for pair in zip([3, *channels], channels, strict=False)]
    norms = {f"norm_{index}" for index in range(len(channels))}
    assert {name for name in params if name.startswith("norm")} == norms
    assert params["dense"]["kernel"].shape == ([3, *channels][-1], width)


def test_the_stem_by_convolutions_of_jax():
    params, x = stem(), IMAGES
    for index in range(2):
        x = jax.lax.conv_general_dilated(
            x,
            params[f"convolution_{index}"]["kernel"],
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        norm = params[f"norm_{index}"]
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        normed = (x - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]
        x = np.maximum(normed, 0.0)
    expected = x.reshape(2, 8, -1) @ params["dense"]["kernel"] + params["dense"]["bias"]
    found = tokens(ConvolutionalStem(4, 16), params, IMAGES)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_tokens_of_the_stem_stand_where_their_patches_do():
    found = tokens(ConvolutionalStem(4, 16), stem(), IMAGES)
    # In the second row and the last column of 2 x 4; what is not beside it stays.
    changed = tokens(ConvolutionalStem(4, 16), stem(), IMAGES.at[:, 6, 14].add(3.0))
    difference = np.abs(changed - found).max(axis=(0, 2))
    assert difference.argmax() == 7
    assert (difference[[0, 1, 4, 5]] == 0.0).all()


def test_examples_do_not_mix():
    # Normalised over channels, not over the batch.
    found = tokens(ConvolutionalStem(4, 16), stem(), IMAGES)
    changed = tokens(ConvolutionalStem(4, 16), stem(), IMAGES.at[1].add(1.0))
    np.testing.assert_array_equal(changed[0], found[0])
    assert np.abs(changed[1] - found[1]).max() > 1e-2
