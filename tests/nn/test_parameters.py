import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters, normal
from transformer.models.gpt import GPT
from transformer.nn.compute import Compute
from transformer.nn.linear import Linear
from transformer.nn.norms import LayerNorm, RMSNorm
from transformer.ops.normalization import layer_norm, rms_norm
from transformer.sharding import Rules, is_box, logical_axes

KNOWN = {field.name for field in dataclasses.fields(Rules)} | {"positions", "layers", None}


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_names_its_axes(scan, tied):
    model = GPT(
        vocab_size=7,
        num_layers=2,
        num_heads=2,
        width=8,
        context=4,
        compute=Compute(scan_layers=scan),
        tie_embeddings=tied,
        output_bias=not tied,
    )
    boxed = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4), int))["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_box):
        where = jax.tree_util.keystr(path)
        assert is_box(leaf), where
        assert len(leaf.names) == leaf.value.ndim, where
        assert set(logical_axes(leaf)) <= KNOWN, where
        assert any(logical_axes(leaf)), where
        assert ("layers" in logical_axes(leaf)) == (scan and "blocks" in where), where


@pytest.mark.parametrize(
    ("features", "axes", "shape", "formula"),
    [
        ((3,), ("embed", "mlp"), (2, 5, 4), "btd,df->btf"),
        ((2, 3), ("embed", "heads", None), (2, 5, 4), "btd,dnh->btnh"),
        ((4,), ("heads", None, "embed"), (2, 5, 3, 2), "btnh,nhd->btd"),
    ],
)
def test_linear_contracts_as_many_axes_as_are_named(features, axes, shape, formula):
    x = normal(np.random.default_rng(0), *shape)
    layer = Linear(features, axes)
    params = noisy_parameters(layer, x)
    expected = np.einsum(formula, x, params["kernel"]) + params["bias"]
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)


def test_linear_computes_in_its_dtype_and_keeps_float32():
    x = jnp.ones((1, 2, 4))
    layer = Linear((3,), ("embed", "mlp"), dtype="bfloat16")
    params = layer.init(jax.random.key(0), x)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert layer.apply({"params": params}, x).dtype == jnp.bfloat16


def test_norm_modules_hold_the_parameters_of_the_ops():
    x = normal(np.random.default_rng(0), 2, 3, 4)
    params = noisy_parameters(LayerNorm(), x)
    expected = layer_norm(x, params["scale"], params["bias"])
    np.testing.assert_array_equal(LayerNorm().apply({"params": params}, x), expected)
    assert set(noisy_parameters(LayerNorm(use_bias=False), x)) == {"scale"}
    params = noisy_parameters(RMSNorm(), x)
    expected = rms_norm(x, params["scale"])
    np.testing.assert_array_equal(RMSNorm().apply({"params": params}, x), expected)
