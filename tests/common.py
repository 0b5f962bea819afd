"""What several test files need."""

import contextlib
import functools
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


class AnyMethod:
    """A model whose parameters are those that a function of it uses."""

    def __init__(self, model, method):
        self.init = functools.partial(model.init, method=method)


def noisy_parameters(module, *inputs, seed=0, scale=0.3, **named_inputs):
    """Parameters of which none is zero or one, so that no mistake can hide behind them."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs, **named_inputs)
    leaves, tree = jax.tree.flatten(nn.meta.unbox(shapes)["params"])
    rng = np.random.default_rng(seed)
    return tree.unflatten([scale * normal(rng, *leaf.shape) for leaf in leaves])


def assert_trees_close(actual, expected, **tolerance):
    def compare(path, one, other):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(one, other, err_msg=name, **tolerance)

    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree_util.tree_map_with_path(compare, actual, expected)


def assert_trees_equal(actual, expected):
    assert_trees_close(actual, expected, rtol=0, atol=0)


@contextlib.contextmanager
def logged_compilations(caplog):
    """In here `caplog` gets a message for each program that is compiled, in any thread.

    `jax.log_compiles` is of one thread, and a run compiles ahead in others.
    """
    jax.config.update("jax_log_compiles", True)
    try:
        with caplog.at_level(logging.WARNING):
            yield
    finally:
        jax.config.update("jax_log_compiles", False)
