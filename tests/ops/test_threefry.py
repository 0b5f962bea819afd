"""A key whose rounds are written one after the other draws what JAX's own draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops.threefry import without_loop

KEY = jax.random.fold_in(jax.random.key(3), 2**31)


def same(draw, key=KEY):
    """Each is one compiled program: the last bit of `erf_inv` depends on what it is fused with."""
    ours, theirs = jax.jit(lambda key: draw(without_loop(key)))(key), jax.jit(draw)(key)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint16, jnp.uint32], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (5, 3), (2, 3, 4, 5)], ids=str)
def test_bits(dtype, shape):
    same(lambda key: jax.random.bits(key, shape, dtype))


def test_bits_differ_from_key_to_key():
    first, second = (jax.random.bits(without_loop(jax.random.key(n)), (100,)) for n in range(2))
    assert (first != second).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: jax.random.normal(key, (33, 5)),
        lambda key: jax.random.normal(key, (33, 5), jnp.bfloat16),
        lambda key: jax.random.truncated_normal(key, -2.0, 2.0, (33,)),
        lambda key: jax.random.bernoulli(key, 0.3, (33, 5)),
        lambda key: jax.random.randint(key, (33,), -4, 9),
        lambda key: jax.random.beta(key, 0.8, 0.8, (3,)),
        lambda key: jax.random.categorical(key, jnp.arange(9.0)),
        lambda key: jax.random.permutation(key, 33),
        lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
        lambda key: jax.random.key_data(jax.random.fold_in(key, 2**32 - 1)),
        lambda key: jax.vmap(lambda one: jax.random.bits(one, (4,)))(jax.random.split(key, 3)),
        lambda key: jax.random.key_data(
            jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(3))
        ),
    ],
)
def test_what_is_drawn(draw):
    same(draw)


def test_an_array_of_keys():
    same(jax.vmap(jax.random.uniform), jax.random.split(KEY, 4))


def lowered(draw):
    return jax.jit(draw).lower(KEY).as_text()


def test_places_that_take_two_words_are_left_to_jax():
    assert "while" in lowered(lambda key: jax.random.bits(without_loop(key), (2**16, 2**16, 2)))
    for shape in ((2**16, 2**16), (1, 2**16, 2**16), (0, 2**33)):
        assert "while" not in lowered(lambda key, s=shape: jax.random.bits(without_loop(key), s))


def test_other_keys_stay():
    for key in (jax.random.key(0, impl="rbg"), without_loop(KEY)):
        assert without_loop(key) is key


def test_bits_of_an_older_kind_stay():
    with jax.threefry_partitionable(False):
        assert without_loop(KEY) is KEY


def test_keys_of_other_devices_stay(monkeypatch):
    monkeypatch.setattr("transformer.ops.threefry.platform", lambda: "gpu")
    assert without_loop(KEY) is KEY


def test_there_is_no_loop():
    """JAX's own has one on CPUs. Once it has none, `without_loop` is no longer needed."""
    assert "while" in lowered(lambda key: jax.random.bits(key, (64, 64)))
    assert "while" not in lowered(lambda key: jax.random.bits(without_loop(key), (64, 64)))
