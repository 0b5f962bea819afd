import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.bert import BERT
from transformer.models.gpt import GPT
from transformer.models.llama import Llama
from transformer.models.mixtral import Mixtral
from transformer.models.t5 import T5
from transformer.models.vaswani import Vaswani
from transformer.models.vit import ViT
from transformer.nn.compute import Compute, computing
from transformer.ops.losses import cross_entropy
from transformer.sections import plugin_names
from transformer.sharding import is_box
from transformer.training import algorithms
from transformer.training.algorithms.muon import muon_axes
from transformer.training.lora import LoRA, with_adapters
from transformer.training.optimizers import (
    SCHEDULES,
    Optimizer,
    decay_mask,
    make_optimizer,
    make_schedule,
)
from transformer.training.selection import by_path as flat_paths

NAMES = plugin_names(algorithms)


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


def expected_rate(name, update, warmup, total):
    """Of the update, counted from 1, by the formulas of the papers; the peak is 2."""
    warmup = max(warmup, 1)
    if update <= warmup:
        return 2.0 * update / warmup
    done = (update - warmup) / (total - warmup)
    return (
        2.0
        * {
            # Loshchilov and Hutter 2017, equation 5, and Vaswani et al. 2017, equation 3.
            "cosine": 0.1 + 0.5 * (1.0 - 0.1) * (1.0 + math.cos(math.pi * done)),
            "linear": 1.0 + (0.1 - 1.0) * done,
            "inverse_square_root": math.sqrt(warmup / update),
            "constant": 1.0,
        }[name]
    )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (1, 7), (3, 11), (4, 5), (1, 2), (1, 1)])
def test_every_update_has_its_rate(name, warmup, total):
    """Step `n`, counted from 0, makes update n + 1."""
    rates = schedule(name, warmup=warmup, total=total)(jnp.arange(total))
    expected = [expected_rate(name, update, warmup, total) for update in range(1, total + 1)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    # The peak is there once, but where the rate stays at it.
    assert np.sum(np.isclose(rates, 2.0)) == (
        total - max(warmup - 1, 0) if name == "constant" else 1
    )


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_last_update_takes_the_final_fraction(name):
    np.testing.assert_allclose(schedule(name)(109), 0.2, rtol=1e-6)
    # And so do those of a run that goes on.
    np.testing.assert_allclose(schedule(name)(200), 0.2, rtol=1e-6)


def test_the_rates_of_vaswani_around_the_peak():
    """d^-0.5 min(step^-0.5, step warmup^-1.5), for the step that is counted from 1."""
    warmup, width = 4000, 512
    peak = width**-0.5 * warmup**-0.5
    config = Optimizer(learning_rate=peak, schedule="inverse_square_root")
    rate = make_schedule(config, warmup_steps=warmup, total_steps=100_000)
    for step in (1, 2, 3999, 4000, 4001, 4002, 8000, 100_000):
        published = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        np.testing.assert_allclose(rate(step - 1), published, rtol=1e-6)


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
    for path, decayed in by_path(
        bool, decay_mask(boxes(compute=Compute(scan_layers=scan)))
    ).items():
        if "kernel" in path or "embedding" in path:
            assert decayed, path
        if "norm" in path:
            assert not decayed, path


@pytest.mark.parametrize("scan", [False, True])
def test_no_bias_decays(scan):
    mask = by_path(bool, decay_mask(boxes(compute=Compute(scan_layers=scan))))
    assert [path for path, decayed in mask.items() if decayed and "bias" in path] == []


TEXT = jnp.zeros((1, 4), jnp.int32)
TINY = {"vocab_size": 11, "num_heads": 2, "width": 8}
PAIR = {"num_encoder_layers": 1, "num_decoder_layers": 1, "feed_forward_width": 8}
EXPERTS = {"num_experts": 3, "experts_per_token": 2, "feed_forward_width": 12}
IMAGES = jnp.zeros((1, 8, 8, 3))
VIT = {"image_size": 8, "patch_size": 4, "channels": 3, "num_heads": 2, "width": 8}
FRONT = {"num_outputs": 3, "num_registers": 2, "distillation": "two"}
DECODER = {"decoder_layers": 1, "decoder_width": 8, "decoder_heads": 2}

ATTENTION = [f"attention/{name}/kernel" for name in ("key", "output", "query", "value")]
DENSE = [f"feed_forward/{name}/kernel" for name in ("down", "up")]
GATED = [f"feed_forward/{name}/kernel" for name in ("down", "gate", "up")]
CROSS = [f"cross_{path}" for path in ATTENTION]
MIXTURE = [f"feed_forward/experts/{name}/kernel" for name in ("down", "gate", "up")]
MIXTURE += ["feed_forward/router/kernel"]
# Model, the method that uses its parameters, its inputs, and the matrices of each stack.
MUON = {
    "gpt": (
        GPT(**TINY, num_layers=1, context=4, tie_embeddings=False, output_bias=True),
        ("__call__", TEXT),
        {"blocks": ATTENTION + DENSE},
    ),
    "llama": (
        Llama(**TINY, num_layers=1, context=4),
        ("__call__", TEXT),
        {"blocks": ATTENTION + GATED},
    ),
    "mixtral": (
        Mixtral(**TINY, **EXPERTS, num_layers=1, context=4),
        ("__call__", TEXT),
        {"blocks": ATTENTION + MIXTURE},
    ),
    "vit": (
        ViT(**VIT, **FRONT, num_layers=1),
        ("classify", IMAGES),
        {"blocks": ATTENTION + DENSE},
    ),
    "vit of attention pooling": (
        ViT(**VIT, num_outputs=3, num_layers=1, pooling="attention", stem="convolutions"),
        ("classify", IMAGES),
        {"blocks": ATTENTION + DENSE},
    ),
    "vit that reconstructs": (
        ViT(**VIT, **DECODER, num_layers=1),
        ("reconstruct", IMAGES, jnp.arange(4)[None], 2),
        {"blocks": ATTENTION + DENSE, "decoder/blocks": ATTENTION + DENSE},
    ),
    "bert": (
        BERT(**TINY, num_layers=1, context=4, num_outputs=3),
        ("classify", TEXT),
        {"blocks": ATTENTION + DENSE},
    ),
    "bert that is pretrained": (
        BERT(**TINY, num_layers=1, context=4),
        ("pretrain", TEXT, TEXT, jnp.array([4]), TEXT),
        {"blocks": ATTENTION + DENSE},
    ),
    "t5": (
        T5(**TINY, **PAIR, gated=True, tie_embeddings=False),
        ("__call__", TEXT, TEXT),
        {"encoder": ATTENTION + GATED, "decoder": ATTENTION + CROSS + GATED},
    ),
    "vaswani": (
        Vaswani(**TINY, **PAIR, token_bias=True),
        ("__call__", TEXT, TEXT),
        {"encoder": ATTENTION + DENSE, "decoder": ATTENTION + CROSS + DENSE},
    ),
}


@functools.cache
def model_boxes(name, scan=False):
    model, (method, *inputs), _ = MUON[name]

    def init(key):
        # As closed over, numbers stay numbers.
        return computing(model, scan_layers=scan).init(key, *inputs, method=method)["params"]

    return jax.eval_shape(init, jax.random.key(0))


@pytest.mark.parametrize("name", MUON)
def test_the_matrices_that_muon_takes(name):
    """All of them, and nothing else: no embedding, token, patch, head, norm or bias."""
    expected = {
        f"{stack}/layer_0/{path}" for stack, paths in MUON[name][2].items() for path in paths
    }
    boxed = flat_paths(model_boxes(name))
    assert {path for path, leaf in boxed.items() if muon_axes(path, leaf)} == expected
    assert len(boxed) > len(expected)


def test_muon_leaves_adapters_to_adam():
    config = LoRA(rank=2, targets="kernel$", trained="")
    boxed = jax.eval_shape(
        lambda boxed: with_adapters(boxed, config, jax.random.key(0)), model_boxes("gpt")
    )
    adapters = {path: leaf for path, leaf in flat_paths(boxed).items() if path.startswith("lora/")}
    assert adapters
    assert not any(muon_axes(path, leaf) for path, leaf in adapters.items())


@pytest.mark.parametrize("scan", [False, True])
def test_muon_axes(scan):
    boxed = flat_paths(model_boxes("mixtral", scan))
    shift = 1 if scan else 0
    layer = "blocks/layers" if scan else "blocks/layer_0"
    expected = {
        "attention/query/kernel": ((0,), (1, 2)),
        "attention/key/kernel": ((0,), (1, 2)),
        "attention/value/kernel": ((0,), (1, 2)),
        "attention/output/kernel": ((0, 1), (2,)),
        "feed_forward/router/kernel": ((0,), (1,)),
        # The first axis is that of experts.
        "feed_forward/experts/gate/kernel": ((1,), (2,)),
        "feed_forward/experts/up/kernel": ((1,), (2,)),
        "feed_forward/experts/down/kernel": ((1,), (2,)),
    }
    for path, (inputs, outputs) in expected.items():
        found = muon_axes(f"{layer}/{path}", boxed[f"{layer}/{path}"])
        assert tuple(found.reduction_axis) == tuple(axis + shift for axis in inputs), path
        assert tuple(found.output_axis) == tuple(axis + shift for axis in outputs), path


def kernels(names, *shape):
    """Random numbers for one kernel of a layer, in a box."""
    kernel = nn.LogicallyPartitioned(
        jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32), names
    )
    return {"blocks": {"layers" if "layers" in names else "layer_0": {"up": {"kernel": kernel}}}}


def first_update(config, boxed):
    """Of a gradient that is the parameter itself."""
    optimizer = make_optimizer(*config, boxed)
    params = nn.meta.unbox(boxed)
    return jax.tree.leaves(optimizer.update(params, optimizer.init(params), params)[0])[0]


@pytest.mark.parametrize(
    ("names", "shape"),
    [(("embed", "mlp"), (4, 7)), (("mlp", "embed"), (7, 4))],
    ids=["gate", "down"],
)
def test_muon_treats_each_expert_of_each_layer_by_itself(names, shape):
    config = constants("muon", weight_decay=0.0, clip_norm=0.0)
    stack = kernels(("layers", "expert", *names), 2, 3, *shape)
    found = first_update(config, stack)
    whole = jax.tree.leaves(stack)[0]
    for layer in range(2):
        for expert in range(3):
            box = nn.LogicallyPartitioned(whole[layer, expert], names)
            alone = first_update(config, {"blocks": {"layer_0": {"up": {"kernel": box}}}})
            np.testing.assert_allclose(found[layer, expert], alone, rtol=1e-4, atol=1e-6)
            # Five steps of Newton and Schulz bring singular values near 1; as long as AdamW's
            # updates they are then times 0.2 sqrt(max(A, B)), and times the rate of 0.01.
            values = np.linalg.svd(alone, compute_uv=False) / (0.01 * 0.2 * math.sqrt(7))
            assert np.all((values > 0.5) & (values < 1.3)), values


def test_muon_leaves_the_rest_to_adamw_as_it_is():
    boxed = layered(numbers(0), scan=False)
    fields = {"weight_decay": 0.3, "beta1": 0.8, "beta2": 0.9, "clip_norm": 0.5}
    found, expected = (updates_of(name, scan=False, **fields) for name in ("muon", "adamw"))
    assert boxed.keys() == {"token_embedding", "blocks", "output"}
    for path, update in expected.items():
        if path.endswith("up/kernel"):
            assert not np.allclose(found[path], update, rtol=1e-2), path
        else:
            np.testing.assert_allclose(found[path], update, rtol=1e-5, err_msg=path)


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
    gpt = model(compute=Compute(scan_layers=scan))

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
    optimizer = make_optimizer(*config, boxes(compute=Compute(scan_layers=scan)))
    return Rule(rate, jax.jit(optimizer.init), jax.jit(optimizer.update))


@pytest.mark.sampled(2)
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
    boxed = boxes(compute=Compute(scan_layers=scan))
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
    optimizer = make_optimizer(*constants(algorithm, **{"weight_decay": 0.3, **fields}), boxed)
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


NONE_OF_THEM = (-1.0, -1e-9, math.nan, math.inf, -math.inf, 1e39, 1e-46)


@pytest.mark.parametrize("value", NONE_OF_THEM)
@pytest.mark.parametrize(
    "field",
    [
        *("learning_rate", "weight_decay", "clip_norm", "epsilon", "final_fraction"),
        *("beta1", "beta2", "muon_beta"),
    ],
)
def test_numbers_that_cannot_work(field, value):
    with pytest.raises(
        ConfigError, match=rf"config\.optimizer\.{field} is {re.escape(str(value))}"
    ):
        require_allowed("optimizer", Optimizer(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        # Adam divides by it where a gradient is always zero.
        ("epsilon", 0.0),
        ("final_fraction", 1.5),
        ("beta1", 1.0),
        # As float32 it is 1.
        ("beta2", 0.999999999),
    ],
)
def test_ends_that_cannot_work(field, value):
    with pytest.raises(
        ConfigError, match=rf"config\.optimizer\.{field} is {re.escape(str(value))}"
    ):
        require_allowed("optimizer", Optimizer(**{field: value}))


def test_the_smallest_numbers_that_work():
    zero = dict.fromkeys(("learning_rate", "weight_decay", "clip_norm", "final_fraction"), 0.0)
    require_allowed(
        "optimizer", Optimizer(**zero, beta1=0.0, beta2=0.0, muon_beta=0.0, epsilon=1e-30)
    )


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5, math.nan])
def test_layer_decays_that_cannot_work(decay):
    with pytest.raises(ConfigError, match=r"config\.optimizer\.layer_decay is"):
        require_allowed("optimizer", Optimizer(layer_decay=decay))


def test_a_pattern_of_frozen_parameters_that_is_none():
    with pytest.raises(ConfigError, match=r"config\.optimizer\.frozen is '\['"):
        require_allowed("optimizer", Optimizer(frozen="["))


def test_rate_scales_are_of_trained_parameters():
    boxed = layered(numbers(0), scan=False)
    with pytest.raises(ConfigError, match=r"rate_scales is 'embedding', which matches no"):
        make_optimizer(*constants("adamw", rate_scales="embedding=2"), {"output": boxed["output"]})
