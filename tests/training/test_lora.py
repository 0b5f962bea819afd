import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_close, assert_trees_equal, normal
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.bert import BERT
from transformer.models.gpt import GPT
from transformer.models.mixtral import Mixtral
from transformer.models.vaswani import Vaswani
from transformer.nn.compute import Compute
from transformer.nn.linear import Linear
from transformer.nn.mixture import MixtureOfExperts
from transformer.training.lora import ADAPTERS, LoRA, is_trained, merged, with_adapters
from transformer.training.selection import by_path, from_paths, split

ALL = "(attention/.*|feed_forward/.*)/kernel"
TOKENS = jnp.arange(8, dtype=jnp.int32).reshape(2, 4)
SIZES = {"vocab_size": 11, "num_heads": 2, "width": 8}
LAYERS = {"num_layers": 2, "context": 4, "feed_forward_width": 12}
VASWANI = {"num_encoder_layers": 1, "num_decoder_layers": 2, "feed_forward_width": 12}


def boxes_of(name, **fields):
    """Shapes of the parameters of a tiny model, in boxes."""
    inputs, method = (TOKENS,), "__call__"
    if name == "gpt":
        model = GPT(**SIZES, **LAYERS, **fields)
    elif name == "mixtral":
        model = Mixtral(**SIZES, **LAYERS, num_experts=3, experts_per_token=2, **fields)
    elif name == "bert":
        model = BERT(**SIZES, **LAYERS, num_outputs=3, **fields)
        method = "classify"
    else:
        model = Vaswani(**SIZES, **VASWANI, **fields)
        inputs = (TOKENS, TOKENS)
    init = jax.eval_shape(lambda key: model.init(key, *inputs, method=method), jax.random.key(0))
    return init["params"]


def filled(boxed, seed=0):
    """Random numbers in boxes."""
    leaves, tree = jax.tree.flatten(boxed)
    rng = np.random.default_rng(seed)
    return tree.unflatten([normal(rng, *leaf.shape) for leaf in leaves])


def adapted(name, config, **fields):
    """Random parameters with adapters whose B is not zero, unboxed."""
    boxed = jax.eval_shape(
        lambda boxed: with_adapters(boxed, config, jax.random.key(1)), boxes_of(name, **fields)
    )
    return nn.meta.unbox(filled(boxed))


# How A B is made of the parts of each kernel; L is a leading axis of stacked layers.
PRODUCTS = {
    "query": "dr,rnh->dnh",
    "key": "dr,rnh->dnh",
    "value": "dr,rnh->dnh",
    "output": "nhr,rd->nhd",
    "up": "dr,rf->df",
    "down": "fr,rd->fd",
    "router": "dr,re->de",
    # Each expert has an A and a B of its own.
    "experts/gate": "edr,erf->edf",
    "experts/up": "edr,erf->edf",
    "experts/down": "efr,erd->efd",
}


def by_numpy(params, config):
    """W + alpha / r A B, kernel by kernel."""
    flat = {path: np.asarray(x, np.float64) for path, x in by_path(params).items()}
    for path in [path for path in flat if path.startswith(f"{ADAPTERS}/") and path.endswith("/a")]:
        kernel = path.removeprefix(f"{ADAPTERS}/").removesuffix("/a")
        *_, parent, name, _ = kernel.split("/")
        product = PRODUCTS[f"{parent}/{name}" if parent == "experts" else name]
        if "/layers/" in path:
            one, other, both = re.split(",|->", product)
            product = f"L{one},L{other}->L{both}"
        a, b = flat.pop(path), flat.pop(f"{path.removesuffix('/a')}/b")
        flat[kernel] = flat[kernel] + config.alpha / config.rank * np.einsum(product, a, b)
    return from_paths(flat)


@pytest.mark.parametrize(
    ("name", "scan", "targets"),
    [("gpt", False, ALL), ("vaswani", False, LoRA.targets), ("bert", True, LoRA.targets)],
)
def test_new_adapters_change_nothing(name, scan, targets):
    config = LoRA(rank=2, targets=targets, trained="")
    boxed = filled(boxes_of(name, compute=Compute(scan_layers=scan)))
    params = nn.meta.unbox(with_adapters(boxed, config, jax.random.key(1)))
    adapters = by_path(params[ADAPTERS])
    for path, leaf in adapters.items():
        assert np.any(np.asarray(leaf)) == path.endswith("/a"), path
    assert_trees_equal(merged(params, config), nn.meta.unbox(boxed))
    # No two adapters are alike.
    first = {float(np.ravel(leaf)[0]) for path, leaf in adapters.items() if path.endswith("/a")}
    assert len(first) == len(adapters) / 2


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", ["gpt", "vaswani", "bert", "mixtral"])
def test_merged_is_the_sum_by_numpy(name, scan):
    config = LoRA(rank=3, alpha=5.0, targets=ALL)
    params = adapted(name, config, compute=Compute(scan_layers=scan))
    found = jax.jit(functools.partial(merged, config=config))(params)
    assert_trees_close(found, by_numpy(params, config), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [GPT, Mixtral])
def test_one_stacked_layer(make):
    config = LoRA(rank=3, alpha=5.0, targets=ALL)
    model = make(**SIZES, num_layers=1, context=4, compute=Compute(scan_layers=True))
    boxed = jax.eval_shape(model.init, jax.random.key(0), TOKENS)["params"]
    boxed = jax.eval_shape(lambda boxed: with_adapters(boxed, config, jax.random.key(1)), boxed)
    params = nn.meta.unbox(filled(boxed))
    assert_trees_close(merged(params, config), by_numpy(params, config), rtol=1e-5, atol=1e-5)


def test_a_begins_with_the_variance_of_its_inputs():
    axes = ("heads", None, "embed")
    kernel = nn.LogicallyPartitioned(jnp.zeros((8, 50, 4)), axes)
    config = LoRA(rank=16, targets="kernel")
    boxed = with_adapters({"output": {"kernel": kernel}}, config, jax.random.key(0))
    a = nn.meta.unbox(boxed)[ADAPTERS]["output"]["kernel"]["a"]
    np.testing.assert_allclose(np.std(a), 1 / math.sqrt(8 * 50), rtol=0.05)


def test_each_expert_begins_with_the_variance_of_its_own_inputs():
    kernel = nn.LogicallyPartitioned(jnp.zeros((2, 3, 50, 4)), ("layers", "expert", "mlp", "embed"))
    config = LoRA(rank=16, targets="kernel")
    boxed = with_adapters({"experts": {"down": {"kernel": kernel}}}, config, jax.random.key(0))
    adapter = boxed[ADAPTERS]["experts"]["down"]["kernel"]
    assert adapter["a"].names == ("layers", "expert", "mlp", None)
    assert adapter["b"].names == ("layers", "expert", None, "embed")
    assert adapter["a"].value.shape == (2, 3, 50, 16)
    assert adapter["b"].value.shape == (2, 3, 16, 4)
    np.testing.assert_allclose(np.std(adapter["a"].value), 1 / math.sqrt(50), rtol=0.05)
    # No two experts begin alike.
    assert len(np.unique(adapter["a"].value[..., 0, 0])) == 6


def test_experts_compute_with_thin_products_of_their_own():
    """x W + alpha / rank (x A) B for each expert that a token is sent to, never making A B."""
    config = LoRA(rank=2, alpha=3.0, targets="(experts/.*|router)/kernel", trained="")
    layer = MixtureOfExperts(num_experts=3, experts_per_token=2, width=5)
    x = normal(np.random.default_rng(0), 1, 6, 4)

    def init(key):
        return with_adapters({"layer": layer.init(key, x)["params"]}, config, key)

    params = nn.meta.unbox(filled(jax.eval_shape(init, jax.random.key(0))))
    kernels, adapters = (by_path(params[part]) for part in ("layer", ADAPTERS))

    def product(x, name, expert=...):
        a, b = (adapters[f"layer/{name}/kernel/{part}"][expert] for part in "ab")
        return x @ kernels[f"{name}/kernel"][expert] + config.alpha / config.rank * (x @ a) @ b

    @jax.jit
    def expected(x):
        weights, chosen = jax.lax.top_k(jax.nn.softmax(product(x, "router")), 2)
        weights /= jnp.sum(weights, axis=-1, keepdims=True)
        total = jnp.zeros_like(x)
        for expert in range(3):
            gate, up = (product(x, f"experts/{name}", expert) for name in ("gate", "up"))
            output = product(jax.nn.silu(gate) * up, "experts/down", expert)
            total += jnp.sum(weights * (chosen == expert), axis=-1, keepdims=True) * output
        return total

    @jax.jit
    def found(x):
        return layer.apply({"params": merged(params, config)["layer"]}, x)

    np.testing.assert_allclose(found(x)[0], expected(x[0]), rtol=1e-4, atol=1e-4)


def test_without_a_rank_there_are_no_adapters():
    boxed = boxes_of("gpt")
    assert with_adapters(boxed, LoRA(), jax.random.key(0)) is boxed
    params = {"x": jnp.ones(2)}
    assert merged(params, LoRA()) is params


@pytest.mark.parametrize(
    ("features", "axes", "shape"),
    [
        ((2, 4), ("embed", "heads", None), (3, 8)),
        ((8,), ("heads", None, "embed"), (3, 2, 4)),
        ((12,), ("embed", "mlp"), (3, 8)),
    ],
    ids=["query", "output", "up"],
)
def test_a_layer_computes_with_a_thin_product(features, axes, shape):
    """x W + alpha / r (x A) B, never making A B."""
    config = LoRA(rank=2, alpha=3.0, targets="layer/kernel", trained="")
    layer = Linear(features, axes, use_bias=False)
    x = normal(np.random.default_rng(0), *shape)

    def init(key):
        boxed = {"layer": layer.init(key, x)["params"]}
        return with_adapters(boxed, config, key)

    params = nn.meta.unbox(filled(jax.eval_shape(init, jax.random.key(0))))
    adapter = params[ADAPTERS]["layer"]["kernel"]
    inputs = tuple(range(1, x.ndim))
    through = jnp.tensordot(x, adapter["a"], (inputs, tuple(range(len(inputs)))))
    plain = layer.apply({"params": params["layer"]}, x)
    expected = plain + config.alpha / config.rank * jnp.tensordot(through, adapter["b"], 1)
    found = layer.apply({"params": merged(params, config)["layer"]}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_model_computes_with_thin_products():
    """All of GPT, with adapters put around its layers by hand."""
    config = LoRA(rank=2, alpha=3.0, targets=ALL, trained="")
    model = GPT(**SIZES, **LAYERS)
    params = jax.tree.map(lambda x: 0.3 * x, adapted("gpt", config))
    adapters = by_path(params[ADAPTERS])

    def beside(call, args, kwargs, context):
        plain = call(*args, **kwargs)
        path = "/".join([*context.module.path, "kernel"])
        if f"{path}/a" not in adapters or context.method_name != "__call__":
            return plain
        a, b = adapters[f"{path}/a"], adapters[f"{path}/b"]
        through = jnp.tensordot(args[0], a, a.ndim - 1)
        return plain + config.alpha / config.rank * jnp.tensordot(through, b, 1)

    @jax.jit
    def by_hand(params):
        with nn.intercept_methods(beside):
            return model.apply({"params": params}, TOKENS)[0]

    @jax.jit
    def logits(params):
        return model.apply({"params": params}, TOKENS)[0]

    base = {name: value for name, value in params.items() if name != ADAPTERS}
    found = logits(merged(params, config))
    np.testing.assert_allclose(found, by_hand(base), rtol=1e-3, atol=1e-4)
    assert jnp.max(jnp.abs(found - logits(base))) > 0.1


def num_parameters(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nn.meta.unbox(tree)))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    ("name", "trained", "expected"),
    [
        # Two layers, queries and values, A [D, r] and B [r, N H] with D = N H = 8.
        ("gpt", "", 2 * 2 * (8 + 8) * 3),
        ("gpt", "final_norm", 2 * 2 * (8 + 8) * 3 + 2 * 8),
        # One layer of the encoder, and two of the decoder that also look at a memory.
        ("vaswani", "", (1 + 2 * 2) * 2 * (8 + 8) * 3),
        ("bert", "^output/", 2 * 2 * (8 + 8) * 3 + (8 + 1) * 3),
        ("bert", "^(output|pooler)/", 2 * 2 * (8 + 8) * 3 + (8 + 1) * 3 + (8 + 1) * 8),
    ],
)
def test_what_is_trained(name, trained, expected, scan):
    config = LoRA(rank=3, trained=trained)
    params = adapted(name, config, compute=Compute(scan_layers=scan))
    moving, kept = split(params, is_trained(params, config))
    assert num_parameters(moving) == expected
    assert num_parameters(kept) == num_parameters(params) - expected
    assert ADAPTERS not in kept
    heads = {module for module in params if trained and re.search(trained, f"{module}/")}
    assert set(moving) == {ADAPTERS, *heads}


def test_thin_kernels_of_other_axes():
    """Adapters keep the names of the axes that they share with their kernel."""
    config = LoRA(rank=3, targets=ALL)
    for scan in (False, True):
        shapes = boxes_of("gpt", compute=Compute(scan_layers=scan))
        boxed = jax.eval_shape(
            lambda boxed: with_adapters(boxed, config, jax.random.key(1)), shapes
        )
        adapters, before = by_path(boxed[ADAPTERS]), ("layers",) * scan
        layer = "layers" if scan else "layer_1"
        for kernel, a, b in (
            ("attention/query", ("embed", None), (None, "heads", None)),
            ("attention/output", ("heads", None, None), (None, "embed")),
            ("feed_forward/down", ("mlp", None), (None, "embed")),
        ):
            for part, names in (("a", a), ("b", b)):
                box = adapters[f"blocks/{layer}/{kernel}/kernel/{part}"]
                assert box.names == (*before, *names)
                assert len(box.names) == box.value.ndim


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("targets", ["query", "attention/query/bias", "final_norm", "output/bias"])
def test_only_kernels_can_be_adapted(targets, scan):
    boxed = boxes_of("gpt", compute=Compute(scan_layers=scan))
    with pytest.raises(
        ConfigError, match=r"config\.lora\.targets matches .*(bias|scale), .*no kern"
    ):
        with_adapters(boxed, LoRA(rank=2, targets=targets), jax.random.key(0))


def test_patterns_that_match_nothing():
    boxed = boxes_of("gpt")
    with pytest.raises(ConfigError, match=r"config\.lora\.targets is 'keys'.*no parameter"):
        with_adapters(boxed, LoRA(rank=2, targets="keys"), jax.random.key(0))
    with pytest.raises(ConfigError, match=r"config\.lora\.trained is '\^outputs/'.*no parameter"):
        is_trained(boxed, LoRA(rank=2, trained="^outputs/"))


def test_the_default_is_for_models_with_and_without_a_head():
    trained = is_trained(boxes_of("gpt"), LoRA(rank=2))
    assert trained("lora/blocks/layer_0/attention/query/kernel/a")
    assert trained("output/kernel")
    assert not trained("token_embedding/embedding")


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", -1), ("alpha", 0.0), ("alpha", -1.0), ("alpha", math.nan), ("alpha", math.inf)],
)
def test_values_that_cannot_work(field, value):
    with pytest.raises(ConfigError, match=rf"config\.lora\.{field}"):
        require_allowed("lora", LoRA(**{field: value}))
