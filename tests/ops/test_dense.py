import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.ops.dense import dense


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("inputs", "kernel", "axes", "formula"),
    [
        ((3,), (3, 4), 1, "d,df->f"),
        ((2, 5, 3), (3, 4), 1, "btd,df->btf"),
        ((2, 5, 3), (3, 4, 2), 1, "btd,dnh->btnh"),
        ((2, 5, 4, 2), (4, 2, 3), 2, "btnh,nhd->btd"),
        ((2, 5, 4, 2), (4, 2, 3, 6), 2, "btnh,nhxy->btxy"),
    ],
)
def test_dense_is_einsum(rng, inputs, kernel, axes, formula):
    x, w = normal(rng, *inputs), normal(rng, *kernel)
    b = normal(rng, *kernel[axes:])
    expected = np.einsum(formula, x, w)
    np.testing.assert_allclose(dense(x, w, num_input_axes=axes), expected, atol=1e-5)
    np.testing.assert_allclose(dense(x, w, b, num_input_axes=axes), expected + b, atol=1e-5)


@pytest.mark.parametrize("outputs", [3, 9])
def test_gradients_are_those_of_einsum(rng, outputs):
    x, w, b = normal(rng, 2, 5, 4, 2), normal(rng, 4, 2, outputs), normal(rng, outputs)
    direction = normal(rng, 2, 5, outputs)

    def ours(x, w, b):
        return jnp.vdot(dense(x, w, b, num_input_axes=2), direction)

    def plain(x, w, b):
        return jnp.vdot(jnp.einsum("btnh,nhd->btd", x, w) + b, direction)

    gradients = (jax.jit(jax.grad(f, argnums=(0, 1, 2)))(x, w, b) for f in (ours, plain))
    for actual, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(("devices", "axes"), [(1, 2), (2, 3)])
def test_several_devices_keep_the_axes(rng, devices, axes):
    x, w, b = normal(rng, 2, 5, 3), normal(rng, 3, 4, 2), normal(rng, 4, 2)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((devices,), ("data",))):
        programs = jax.make_jaxpr(dense)(x, w, b), jax.make_jaxpr(dense)(x, w)
    for program, is_added in zip(programs, (True, False), strict=True):
        steps = {one.primitive.name: one for one in program.eqns}
        assert steps["dot_general"].invars[0].aval.ndim == axes
        assert ("add" in steps) == is_added
        assert program.out_avals[0].shape == (2, 5, 4, 2)


def test_shapes_that_do_not_fit_raise():
    with pytest.raises(ValueError, match=r"\(2, 5\).*\(3,\)"):
        dense(jnp.zeros((2, 5)), jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"\(2, 4, 2\).*\(2, 4\)"):
        dense(jnp.zeros((2, 4, 2)), jnp.zeros((2, 4, 3)), num_input_axes=2)


def test_a_cpu_transposes_the_smaller_matrix_for_the_gradient_of_a_kernel(rng):
    """Its library has no product whose left side is transposed."""
    x, w = normal(rng, 64, 48), normal(rng, 48, 16)
    gradient = jax.grad(lambda w: jnp.sum(jnp.sin(dense(x, w))))
    program = jax.jit(gradient).lower(w).compile().as_text()
    assert "f32[16,48]{1,0} dot(" in program and "f32[48,16]{1,0} dot(" not in program
