import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.errors import ConfigError
from transformer.models.gpt import GPT
from transformer.ops.losses import cross_entropy
from transformer.sharding import is_box
from transformer.training.optimizers import (
    NAMES,
    SCHEDULES,
    Optimizer,
    decay_mask,
    make_optimizer,
    make_schedule,
    muon_axes,
)


def model(**fields):
    tied = {"tie_embeddings": False, "output_bias": True}
    return GPT(vocab_size=11, num_layers=2, num_heads=2, width=8, context=6, **{**tied, **fields})


def boxes(**fields):
    tokens = jnp.zeros((1, 6), int)
    return jax.eval_shape(model(**fields).init, jax.random.key(0), tokens)["params"]


def by_path(function, boxed):
    leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_box)
    return {
        "/".join(key.key for key in path if hasattr(key, "key")): function(leaf)
        for path, leaf in leaves
    }


def schedule(name, warmup=10, total=110, **fields):
    config = Optimizer(learning_rate=2.0, schedule=name, final_fraction=0.1, **fields)
    return make_schedule(config, warmup_steps=warmup, total_steps=total)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_rises_to_the_peak(name):
    rates = schedule(name)(jnp.arange(10))
    np.testing.assert_allclose(rates, 2.0 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(schedule(name)(10), 2.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [
        ("cosine", 2.0 * (0.1 + 0.9 / 2), 0.2),
        ("linear", 2.0 * (0.1 + 0.9 / 2), 0.2),
        ("inverse_square_root", 2.0 * (10 / 60) ** 0.5, 2.0 * (10 / 110) ** 0.5),
        ("constant", 2.0, 2.0),
    ],
)
def test_middle_and_end(name, middle, end):
    np.testing.assert_allclose(schedule(name)(60), middle, rtol=1e-5)
    np.testing.assert_allclose(schedule(name)(110), end, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1])
def test_short_warmups_begin_at_the_peak(name, warmup):
    rate = schedule(name, warmup=warmup)(jnp.zeros((), int))
    np.testing.assert_allclose(rate, 2.0, rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_that_is_all_warmup(name):
    rates = schedule(name, warmup=4, total=4)(jnp.arange(4))
    np.testing.assert_allclose(rates, [0.5, 1.0, 1.5, 2.0], rtol=1e-6)


def test_inverse_square_root_of_a_plain_number():
    np.testing.assert_allclose(schedule("inverse_square_root")(0), 0.2, rtol=1e-6)


@pytest.mark.parametrize("scan", [False, True])
def test_matrices_and_embeddings_decay_norms_do_not(scan):
    for path, decayed in by_path(bool, decay_mask(boxes(scan_layers=scan))).items():
        if "kernel" in path or "embedding" in path:
            assert decayed, path
        if "norm" in path:
            assert not decayed, path


@pytest.mark.parametrize("scan", [False, True])
def test_no_bias_decays(scan):
    mask = by_path(bool, decay_mask(boxes(scan_layers=scan)))
    assert [path for path, decayed in mask.items() if decayed and "bias" in path] == []


@pytest.mark.parametrize("scan", [False, True])
def test_muon_takes_only_matrices_of_blocks(scan):
    axes = by_path(muon_axes, boxes(scan_layers=scan))
    for path, dimensions in axes.items():
        assert (dimensions is not None) == ("blocks" in path and "kernel" in path), path
    assert any(axes.values())


@pytest.mark.parametrize("scan", [False, True])
def test_muon_axes(scan):
    axes = by_path(muon_axes, boxes(scan_layers=scan))
    shift = 1 if scan else 0
    layer = "blocks/layers" if scan else "blocks/layer_0"
    expected = {
        "attention/query/kernel": ((0,), (1, 2)),
        "attention/key/kernel": ((0,), (1, 2)),
        "attention/value/kernel": ((0,), (1, 2)),
        "attention/output/kernel": ((0, 1), (2,)),
        "feed_forward/up/kernel": ((0,), (1,)),
        "feed_forward/down/kernel": ((0,), (1,)),
    }
    for path, (inputs, outputs) in expected.items():
        found = axes[f"{layer}/{path}"]
        assert tuple(found.reduction_axis) == tuple(axis + shift for axis in inputs), path
        assert tuple(found.output_axis) == tuple(axis + shift for axis in outputs), path


def constants(algorithm, rate=1e-2, **fields):
    config = Optimizer(algorithm=algorithm, **fields)
    return config, make_schedule(
        Optimizer(learning_rate=rate, schedule="constant"), warmup_steps=0, total_steps=1
    )


TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (4, 7)), jnp.int32)


class Learning(NamedTuple):
    """A tiny GPT: its parameters with the names of their axes, and its compiled loss."""

    boxed: Any
    loss_and_gradients: Callable[[Any], tuple[Any, Any]]


@functools.cache
def learning(scan):
    gpt = model(scan_layers=scan)

    def loss(params):
        logits, _ = gpt.apply({"params": params}, TOKENS[:, :-1])
        return cross_entropy(logits, TOKENS[:, 1:]).nll.mean()

    boxed = jax.jit(gpt.init)(jax.random.key(0), TOKENS[:, :-1])["params"]
    return Learning(boxed, jax.jit(jax.value_and_grad(loss)))


class Rule(NamedTuple):
    """The compiled parts of an optimizer with a weight decay of 0.1."""

    rate: float
    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]


@functools.cache
def rule(algorithm, scan):
    rate = 1e-2 if algorithm == "lion" else 2e-2
    config = constants(algorithm, rate, weight_decay=0.1)
    optimizer = make_optimizer(*config, boxes(scan_layers=scan))
    return Rule(rate, jax.jit(optimizer.init), jax.jit(optimizer.update))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("algorithm", NAMES)
def test_a_tiny_loss_falls(algorithm, scan):
    boxed, loss_and_gradients = learning(scan)
    _, init, update = rule(algorithm, scan)
    params = nn.meta.unbox(boxed)
    before, _ = loss_and_gradients(params)
    state = init(params)
    for _ in range(40):
        updates, state = update(loss_and_gradients(params)[1], state, params)
        params = jax.tree.map(np.add, params, updates)
    after, _ = loss_and_gradients(params)
    assert after < 0.6 * before


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("algorithm", NAMES)
def test_without_gradients_only_the_decayed_move(algorithm, scan):
    boxed = boxes(scan_layers=scan)
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), nn.meta.unbox(boxed))
    rate, init, update = rule(algorithm, scan)
    updates, _ = update(jax.tree.map(np.zeros_like, params), init(params), params)
    moved = by_path(lambda update: bool(np.any(np.asarray(update) != 0)), updates)
    assert moved == by_path(bool, decay_mask(boxed))
    for path, update in by_path(lambda x: x, updates).items():
        if moved[path]:
            np.testing.assert_allclose(update, -rate * 0.1, rtol=1e-5, err_msg=path)


@pytest.mark.parametrize(("clip", "expected"), [(1.0, 1.0), (100.0, 10.0), (0.0, 10.0)])
def test_long_gradients_are_clipped(clip, expected):
    """Seen through Lion's momentum, which is linear in the gradient."""
    boxed = {"x": jnp.zeros(4)}
    optimizer = make_optimizer(*constants("lion", clip_norm=clip, beta2=0.5), boxed)
    gradient = {"x": jnp.full(4, 5.0)}
    _, state = optimizer.update(gradient, optimizer.init(boxed), boxed)
    (momentum,) = (leaf for leaf in jax.tree.leaves(state) if leaf.shape == (4,))
    np.testing.assert_allclose(jnp.linalg.norm(momentum), 0.5 * expected, rtol=1e-5)


def layered(make, *, scan):
    """A table, two layers and an output, of numbers that `make` gives for a name and a shape."""

    def box(name, axes, shape):
        return nn.LogicallyPartitioned(make(name, shape), axes)

    def of_layers(module, axes, shape):
        parts = [make(f"{module}{layer}", shape) for layer in range(2)]
        if scan:
            return nn.LogicallyPartitioned(jnp.stack(parts), ("layers", *axes))
        return [nn.LogicallyPartitioned(part, axes) for part in parts]

    up = of_layers("up", ("embed", "mlp"), (4, 6))
    scale = of_layers("scale", ("embed",), (4,))
    layers = {"layers": (up, scale)} if scan else {f"layer_{n}": (up[n], scale[n]) for n in (0, 1)}
    return {
        "token_embedding": {"embedding": box("table", ("vocab", "embed"), (5, 4))},
        "blocks": {
            name: {"up": {"kernel": up}, "norm": {"scale": scale}}
            for name, (up, scale) in layers.items()
        },
        "output": {"kernel": box("output", ("embed", "vocab"), (4, 5))},
    }


def numbers(seed):
    def make(name, shape):
        digits = sum(ord(letter) for letter in name)
        return jnp.asarray(np.random.default_rng((seed, digits)).normal(size=shape), jnp.float32)

    return make


def updates_of(algorithm, *, scan, **fields):
    """The first updates, by path."""
    boxed = layered(numbers(0), scan=scan)
    optimizer = make_optimizer(*constants(algorithm, weight_decay=0.3, **fields), boxed)
    params, gradients = (nn.meta.unbox(layered(numbers(seed), scan=scan)) for seed in (0, 1))

    @jax.jit
    def update(gradients, params):
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    return by_path(jnp.asarray, update(gradients, params))


# With a decay of 0.5: a table below two layers below an output.
FACTORS = {"token_embedding": 0.125, "blocks/layer_0": 0.25, "blocks/layer_1": 0.5, "output": 1.0}


@pytest.mark.parametrize("algorithm", NAMES)
def test_layer_decay_scales_updates(algorithm):
    """Those of weight decay too, and as much where layers are stacked."""
    fields = {"layer_decay": 0.5, "rate_scales": "output=3,up/kernel=2"}
    plain = updates_of(algorithm, scan=False)
    scaled = updates_of(algorithm, scan=False, **fields)
    stacked = updates_of(algorithm, scan=True, **fields)
    for path, update in scaled.items():
        (factor,) = (f for module, f in FACTORS.items() if path.startswith(module))
        factor *= 3.0 if "output" in path else 2.0 if "up" in path else 1.0
        assert np.all(plain[path] != 0), path
        np.testing.assert_allclose(update, factor * plain[path], rtol=1e-6, err_msg=path)
        layer = path.split("/")[1]
        if layer.startswith("layer_"):
            other = stacked[path.replace(layer, "layers")][int(layer[-1])]
        else:
            other = stacked[path]
        np.testing.assert_allclose(other, update, rtol=1e-4, atol=1e-7, err_msg=path)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5])
def test_layer_decays_that_cannot_work(decay):
    with pytest.raises(ConfigError, match=r"config\.optimizer\.layer_decay is"):
        Optimizer(layer_decay=decay).check()


def test_a_pattern_of_frozen_parameters_that_is_none():
    with pytest.raises(ConfigError, match=r"config\.optimizer\.frozen is '\['"):
        Optimizer(frozen="[").check()


def test_rate_scales_are_of_trained_parameters():
    boxed = layered(numbers(0), scan=False)
    with pytest.raises(ConfigError, match=r"rate_scales is 'embedding', which matches no"):
        make_optimizer(*constants("adamw", rate_scales="embedding=2"), {"output": boxed["output"]})
