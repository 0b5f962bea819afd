"""Kernels and programs on the GPU that is here, beside einsum in float32.

JAX_PLATFORMS=cuda XLA_PYTHON_CLIENT_PREALLOCATE=false python -m pytest tests/ops/test_on_a_gpu.py
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from tests.ops.test_cudnn import HEADS, ROWS, arrays, masks_for
from transformer.ops.attention import dot_product_attention
from transformer.ops.masks import causal

if jax.default_backend() != "gpu":
    pytest.skip("no GPU was asked for: JAX_PLATFORMS=cuda tries one", allow_module_level=True)

RNG = np.random.default_rng(0)
# The norm of the difference by that of the right value; steps of bfloat16 are 2^-8 of a number.
LIMIT = 0.02


def distance(found, expected):
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    assert np.all(np.isfinite(found))
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-6)


def both(mask, inputs, bias=None, name="cudnn"):
    """Output and gradients in bfloat16 by a kernel, and by einsum in float32."""
    inputs = [x.astype("bfloat16") for x in (inputs if bias is None else [*inputs, bias])]

    def total(name, query, key, value, bias=None):
        attended = dot_product_attention(
            query, key, value, bias=bias, mask=mask, scale=0.3, implementation=name
        )
        return jnp.sum(attended * jnp.cos(jnp.arange(query.shape[-1]))), attended

    def results(name, inputs):
        function = functools.partial(total, name)
        places = tuple(range(len(inputs)))
        (_, out), gradients = jax.jit(jax.value_and_grad(function, places, has_aux=True))(*inputs)
        return out, *gradients

    with jax.default_matmul_precision("highest"):
        expected = results("einsum", [x.astype("float32") for x in inputs])
    return results(name, inputs), expected


@pytest.mark.parametrize("length", [64, 197])
@pytest.mark.parametrize("name", list(masks_for(9)))
def test_every_mask_in_the_kernel(name, length):
    for found, expected in zip(
        *both(masks_for(length)[name], arrays(length, length, size=64)), strict=True
    ):
        assert distance(found, expected) < LIMIT


@pytest.mark.parametrize("size", [8, 128, 256])
def test_sizes_of_heads(size):
    for found, expected in zip(*both(causal(), arrays(130, 130, size=size)), strict=True):
        assert distance(found, expected) < LIMIT


@pytest.mark.parametrize(
    ("name", "length", "shape"),
    [
        ("none", 65, (1, HEADS)),
        ("causal", 65, (ROWS, 1)),
        ("window", 64, (1, HEADS)),
        ("padding behind", 64, (1, HEADS)),
        ("holes", 65, (ROWS, 1)),
    ],
)
def test_biases_and_their_gradients_in_the_kernel(shape, name, length):
    bias = normal(RNG, *shape, length, length)
    inputs = arrays(length, length, size=64)
    for found, expected in zip(*both(masks_for(length)[name], inputs, bias), strict=True):
        assert distance(found, expected) < LIMIT


@pytest.mark.parametrize("name", ["causal", "documents, causal", "padding behind"])
def test_blocks(name):
    inputs = arrays(700, 700, size=64)
    for found, expected in zip(*both(masks_for(700)[name], inputs, name="blockwise"), strict=True):
        assert distance(found, expected) < LIMIT
