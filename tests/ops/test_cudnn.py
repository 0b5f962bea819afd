"""cuDNN's attention without a GPU: JAX's own checks, and its own reference behind the same call.

What devices would be asked (compute capability, version) is answered here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused

from tests.common import normal
from transformer.ops import attention, cudnn
from transformer.ops.attention import UNDER_VMAP, dot_product_attention, resolved
from transformer.ops.masks import (
    Mask,
    at_positions,
    causal,
    explicit,
    padding,
    padding_behind,
    segments,
    sliding_window,
)

HEADS, KV_HEADS, SIZE, ROWS = 4, 2, 8, 2
RNG = np.random.default_rng(0)
HOPPER, AMPERE = (9, 0), (8, 0)


def arrays(num_queries, num_keys, dtype="float32", size=SIZE):
    query = normal(RNG, ROWS, num_queries, HEADS, size)
    key, value = (normal(RNG, ROWS, num_keys, KV_HEADS, size) for _ in range(2))
    return [x.astype(dtype) for x in (query, key, value)]


def masks_for(length):
    """By name, all kinds of masks for as many queries as keys."""
    places = jnp.arange(length)
    lengths = jnp.array([length - 3, 0])
    documents = jnp.asarray(np.stack([np.arange(length) // 3, np.zeros(length, int)]))
    holes = (places % 4 != 1)[None] & jnp.ones((ROWS, 1), bool)
    in_front = places[None] >= jnp.array([[2], [length]])
    backwards = jnp.broadcast_to(places[::-1], (ROWS, length))
    return {
        "none": Mask(),
        "causal": causal(),
        "window": causal() & sliding_window(3),
        "window on both sides": sliding_window(3),
        "padding behind": padding_behind(lengths),
        "padding behind, causal": causal() & padding_behind(lengths),
        "padding behind, window": causal() & sliding_window(2) & padding_behind(lengths),
        "padding behind, wide window": sliding_window(2) & padding_behind(lengths),
        "padding in front": causal() & padding(in_front),
        "holes": padding(holes),
        "documents": segments(documents),
        "documents, causal": causal() & segments(documents),
        "documents, window": causal() & sliding_window(2) & segments(documents),
        "positions": causal() & at_positions(backwards, backwards),
        "arbitrary": explicit(jnp.asarray(RNG.random((1, HEADS, length, length)) < 0.5)),
    }


@pytest.fixture
def reference(monkeypatch):
    """JAX's reference in place of the kernel, in float32; what it was asked for is kept."""
    asked, library = [], jax.nn.dot_product_attention

    def call(query, key, value, bias=None, mask=None, **options):
        assert options.pop("implementation") == "cudnn"
        asked.append({"query": query, "key": key, "bias": bias, "mask": mask, **options})
        return library(query, key, value, bias, mask, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", call)
    monkeypatch.setattr(cudnn, "_HALF", ("float32",))
    return asked


def both(mask, inputs, bias):
    """Output and gradients, of all inputs and the bias, by the kernel and by einsum."""
    inputs = inputs if bias is None else [*inputs, bias]

    def total(implementation, query, key, value, bias=None):
        attended = dot_product_attention(
            query, key, value, bias=bias, mask=mask, scale=0.3, implementation=implementation
        )
        return jnp.sum(attended * jnp.cos(jnp.arange(SIZE))), attended

    @jax.jit
    def results(*inputs):
        places = tuple(range(len(inputs)))
        functions = [functools.partial(total, name) for name in ("cudnn", "einsum")]
        return [jax.value_and_grad(f, places, has_aux=True)(*inputs) for f in functions]

    return [(attended, *gradients) for (_, attended), gradients in results(*inputs)]


def must_take(asked):
    """What the kernel or JAX's checks of it need, which the reference does not."""
    num_queries, num_keys = asked["query"].shape[1], asked["key"].shape[1]
    assert num_queries % 2 == 0 and num_keys % 2 == 0
    for name in ("bias", "mask"):
        if asked[name] is not None:
            assert asked[name].shape[2:] == (num_queries, num_keys)
            assert asked.get("local_window_size") is None
    if asked.get("local_window_size") is not None:
        assert asked["is_causal"] and asked["local_window_size"][1] == 0
    for name in ("query_seq_lengths", "key_value_seq_lengths"):
        if asked.get(name) is not None:
            assert asked[name].dtype == jnp.int32


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "length"),
    [*((name, 9) for name in masks_for(9)), ("none", 8), ("padding behind", 8), ("holes", 8)],
)
def test_every_mask_is_that_of_the_reference(reference, name, length):
    mask = masks_for(length)[name]
    found, expected = both(mask, arrays(length, length), None)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    must_take(reference[0])


@pytest.mark.parametrize("length", [8, 9])
def test_the_kernel_is_given_a_key_for_every_query(reference, length):
    @jax.jit
    def given(*inputs):
        for mask in masks_for(length).values():
            dot_product_attention(*inputs, mask=mask, implementation="cudnn")
        return [asked["mask"] for asked in reference if asked["mask"] is not None]

    whole = given(*arrays(length, length))
    assert len(whole) == 9
    assert all(np.all(np.any(mask, axis=-1)) for mask in whole)


@pytest.mark.parametrize(
    ("name", "length", "shape"),
    [
        ("none", 9, (1, HEADS)),
        ("none", 8, (1, HEADS)),
        ("causal", 9, (ROWS, 1)),
        ("window", 9, (1, HEADS)),
        ("padding behind", 9, (1, HEADS)),
        ("documents", 9, (1, HEADS)),
        ("holes", 9, (ROWS, 1)),
    ],
)
def test_biases_and_their_gradients_are_those_of_the_reference(reference, shape, name, length):
    bias = normal(RNG, *shape, length, length)
    found, expected = both(masks_for(length)[name], arrays(length, length), bias)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    must_take(reference[0])


@pytest.mark.parametrize(("num_queries", "num_keys"), [(5, 8), (7, 3), (1, 5)])
def test_as_many_queries_as_keys_are_not_needed(reference, num_queries, num_keys):
    first = jnp.arange(num_keys)[None] < jnp.array([[2], [9]])
    pairs = segments(jnp.ones((ROWS, num_queries), int), first.astype(int))
    for mask in (Mask(), causal(), padding_behind(jnp.array([2, num_keys])), pairs):
        found, expected = both(mask, arrays(num_queries, num_keys), None)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)
    for asked in reference:
        must_take(asked)


def test_a_mask_that_the_kernel_knows_is_not_made_whole(reference):
    known = ("none", "causal", "window", "padding behind", "padding behind, window")
    for name in known:
        both(masks_for(9)[name], arrays(9, 9), None)
    assert all(asked["mask"] is None and asked["bias"] is None for asked in reference)
    assert reference[2]["local_window_size"] == (2, 0)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is not there; returns what sets its compute capability."""
    monkeypatch.setattr(attention.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused, "is_cuda_compute_capability_equal", lambda text: False)

    def is_one_of(capability):
        def at_least(text):
            return capability >= tuple(map(int, text.split(".")))

        monkeypatch.setattr(fused, "check_compute_capability", at_least)
        monkeypatch.setattr(cudnn, "_compute_capability", lambda: capability)

    is_one_of(HOPPER)
    return is_one_of


def passes(mask, shapes, bias=None, implementation="cudnn"):
    """Goes through JAX's checks, once forward and once for a gradient."""

    def attend(query, key, value, bias=None):
        return dot_product_attention(
            query, key, value, bias=bias, mask=mask, implementation=implementation
        )

    inputs = shapes if bias is None else [*shapes, bias]
    jax.eval_shape(attend, *inputs)

    def total(*inputs):
        return jnp.sum(attend(*inputs).astype(jnp.float32))

    jax.eval_shape(jax.grad(total, tuple(range(len(inputs)))), *inputs)


@pytest.mark.parametrize(("length", "dtype"), [(196, "bfloat16"), (197, "float16")])
def test_every_mask_passes_the_checks_of_jax(gpu, length, dtype):
    for mask in masks_for(length).values():
        assert resolved("auto", arrays(length, length, dtype)[0], length, mask) == "cudnn"
        passes(mask, arrays(length, length, dtype))


@pytest.mark.parametrize("length", [196, 197])
def test_biases_pass_the_checks_of_jax(gpu, length):
    bias = jax.ShapeDtypeStruct((1, HEADS, length, length), jnp.float32)
    for name in ("none", "causal", "padding behind", "documents"):
        passes(masks_for(length)[name], arrays(length, length, "bfloat16"), bias)


@pytest.mark.parametrize(
    ("capability", "size", "chosen"),
    [
        (HOPPER, 128, "cudnn"),
        (HOPPER, 256, "cudnn"),
        (HOPPER, 264, "einsum"),
        (HOPPER, 20, "einsum"),
        (AMPERE, 128, "cudnn"),
        (AMPERE, 256, "einsum"),
        ((10, 0), 256, "einsum"),
        ((7, 5), 64, "einsum"),
        ((), 64, "einsum"),  # None of NVIDIA's.
    ],
)
def test_heads_and_generations(gpu, capability, size, chosen):
    gpu(capability)
    inputs = arrays(33, 33, "bfloat16", size)
    assert resolved("auto", inputs[0], 33, causal()) == chosen
    if chosen == "cudnn":
        passes(causal(), inputs)


def test_what_no_kernel_does_is_left_to_others(gpu):
    half, whole = (jax.ShapeDtypeStruct((1, 512, HEADS, SIZE), t) for t in ("bfloat16", "float32"))
    assert resolved("auto", whole, 512, causal()) == "blockwise"
    assert resolved("auto", half, 512, causal(), has_cap=True) == "blockwise"
    assert resolved("auto", half, 512, causal(), has_dropout=True) == "einsum"
    # One token after the other is written: there is nothing to save.
    one = jax.ShapeDtypeStruct((1, 1, HEADS, SIZE), "bfloat16")
    assert resolved("auto", one, 512, padding_behind(jnp.array([3]))) == "einsum"


def test_a_mask_that_would_be_too_large_is_left_to_blockwise(gpu):
    long = jax.ShapeDtypeStruct((1, 1 << 15, HEADS, SIZE), "bfloat16")
    documents = Mask(query_segments=True, key_segments=True)
    assert resolved("auto", long, 1 << 15, documents) == "blockwise"
    assert resolved("auto", long, 1 << 15, causal() & sliding_window(9)) == "cudnn"
    short = jax.ShapeDtypeStruct((1, 1 << 13, HEADS, SIZE), "bfloat16")
    assert resolved("auto", short, 1 << 13, documents) == "cudnn"
    assert resolved("auto", short, 1 << 13, documents, has_bias=True) == "cudnn"
    many = jax.ShapeDtypeStruct((2, 1 << 13, HEADS, SIZE), "bfloat16")
    assert resolved("auto", many, 1 << 13, documents, has_bias=True) == "einsum"


@pytest.mark.parametrize(
    ("name", "length"), [("none", 8), ("none", 9), *((name, 9) for name in list(masks_for(9))[1:])]
)
def test_under_vmap_only_what_jax_can_batch_is_chosen(gpu, name, length):
    mask, (query, key, value) = masks_for(length)[name], arrays(length, length, "bfloat16")
    inputs = [jnp.stack([x] * 3) for x in (query, key, value)]

    def total(query, key, value):
        attended = dot_product_attention(query, key, value, mask=mask, implementation=UNDER_VMAP)
        return jnp.sum(jnp.square(attended.astype(jnp.float32)))

    jax.eval_shape(jax.vmap(jax.grad(total, (0, 1, 2))), *inputs)
    expected = (
        "cudnn" if name in ("causal", "window") or (name, length) == ("none", 8) else "einsum"
    )
    assert resolved(UNDER_VMAP, query, length, mask) == expected


def test_what_the_kernel_is_told_in_numbers():
    behind = padding_behind(jnp.array([1, 0]))
    # A row without any key has one there, and zeros as outputs.
    lengths = cudnn._asked(behind, 2, 4, 4)["key_value_seq_lengths"]
    assert lengths.tolist() == [1, 1]
    seeing = cudnn._seeing(behind, None, 3, 4)
    assert seeing.tolist() == [[[[True]]], [[[False]]]]
    places = jnp.zeros((1, 4), int)
    moved = (at_positions(places), Mask(key_positions=places))
    assert cudnn._is_plainly_causal(causal(), 4, 4)
    assert not any(cudnn._is_plainly_causal(causal() & mask, 4, 4) for mask in moved)


def test_the_largest_mask():
    length = 1 << 14
    query = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.bfloat16)
    asked = {"mask": padding(jnp.ones((1, length), bool)), "has_dropout": False, "has_cap": False}
    assert cudnn.cudnn_refusal(query, length, has_bias=False, **asked) is None
    assert "entries" in cudnn.cudnn_refusal(query, length, has_bias=True, **asked)
