import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops.activations import ACTIVATIONS, soft_cap

FORMULAS = {
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def test_every_activation_has_a_formula_here():
    assert ACTIVATIONS.keys() == FORMULAS.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_slope(name):
    points = np.linspace(-5, 5, 42)
    formula = np.vectorize(FORMULAS[name])
    x = jnp.asarray(points, jnp.float32)
    np.testing.assert_allclose(ACTIVATIONS[name](x), formula(points), atol=1e-5)
    slope = (formula(points + 1e-5) - formula(points - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.vmap(jax.grad(ACTIVATIONS[name]))(x), slope, atol=1e-4)


@pytest.mark.parametrize("name", FORMULAS)
def test_dtype_is_kept(name):
    assert ACTIVATIONS[name](jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_soft_cap_in_numbers():
    # 2 tanh(1/2) and 2 tanh(-50).
    capped = soft_cap(jnp.array([1.0, 0.0, -100.0]), 2.0)
    np.testing.assert_allclose(capped, [0.9242343, 0.0, -2.0], rtol=1e-6)
