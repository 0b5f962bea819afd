import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.data.pairs.batches import lay_out
from transformer.data.pairs.files import Sentences, TokenPairs
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.t5 import T5
from transformer.nn.compute import Compute, computing
from transformer.ops.losses import cross_entropy
from transformer.ops.masks import at_positions, causal

# Distances beyond the largest, and heads whose widths do not add up to the model's.
OLD = T5(
    vocab_size=11,
    num_encoder_layers=2,
    num_decoder_layers=2,
    num_heads=2,
    head_dim=5,
    width=16,
    feed_forward_width=24,
    num_buckets=6,
    max_distance=5,
    dropout_rate=0.0,
)
NEW = OLD.clone(gated=True, activation="gelu_tanh", tie_embeddings=False, begin_id=0)
S, T = 9, 8


def tokens(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).integers(1, 11, shape), jnp.int32)


SOURCE, TARGET = tokens(0, 3, S), tokens(1, 3, T)


@functools.cache
def params_of(model):
    return noisy_parameters(model, SOURCE, TARGET)


@functools.cache
def compiled(model):
    return jax.jit(model.apply)


def layout_of(source_lengths, target_lengths):
    """One pair to a row, and what is behind its lengths is padding."""
    layout = {}
    for side, length, used in (("source", S, source_lengths), ("target", T, target_lengths)):
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (3, length))
        layout[f"{side}_positions"] = positions
        layout[f"{side}_segments"] = (positions < np.reshape(used, (-1, 1))).astype(np.int32)
    return layout


def logits_of(model, source=SOURCE, target=TARGET, layout=None, params=None):
    """Of three rows, by one program that is compiled once."""
    layout = layout_of(S, T) if layout is None else layout
    variables = {"params": params_of(model) if params is None else params}
    return np.asarray(compiled(model)(variables, source, target, **layout))


def other_tokens(ids, place):
    """Another token at a place of every row."""
    return ids.at[:, place].set(ids[:, place] % 10 + 1)


def both(test):
    return pytest.mark.parametrize("model", [OLD, NEW], ids=["1.0", "1.1"])(test)


SCANNED = Compute(scan_layers=True)
SMALL = {"vocab_size": 32_128, "head_dim": 64, "width": 512}
BASE = SMALL | {
    "width": 768,
    "num_heads": 12,
    "num_encoder_layers": 12,
    "num_decoder_layers": 12,
    "compute": SCANNED,
}
GATED = {"gated": True, "activation": "gelu_tanh", "tie_embeddings": False}
SIZES = {
    "small": (SMALL, 60_506_624),
    "small, scanned": (SMALL | {"compute": SCANNED}, 60_506_624),
    "base": (BASE | {"feed_forward_width": 3072}, 222_903_552),
    "1.1 small": (
        SMALL
        | GATED
        | {
            "num_heads": 6,
            "num_encoder_layers": 8,
            "num_decoder_layers": 8,
            "feed_forward_width": 1024,
            "compute": SCANNED,
        },
        76_961_152,
    ),
    "1.1 base": (BASE | GATED, 247_577_856),
}


@pytest.mark.parametrize("size", SIZES)
def test_numbers_of_parameters_are_the_published_ones(size):
    fields, expected = SIZES[size]
    model = T5(**fields)
    require_allowed("model", model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TARGET)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected


def test_parameters_are_tables_kernels_and_scales():
    kinds = set()
    for path, _ in jax.tree_util.tree_leaves_with_path(params_of(NEW)):
        kinds.add((path[0].key, path[-1].key))
    assert {name for name, _ in kinds} == {
        *("token_embedding", "encoder_positions", "decoder_positions", "encoder", "decoder"),
        *("encoder_norm", "decoder_norm", "output"),
    }
    assert {kind for _, kind in kinds} == {"embedding", "kernel", "scale"}
    assert params_of(OLD).keys() == params_of(NEW).keys() - {"output"}
    assert params_of(OLD)["encoder_positions"]["embedding"].shape == (6, 2)


@both
def test_output_layer_is_what_makes_the_logits(model):
    def run(module):
        features = module.features(SOURCE, TARGET)
        kernel, none = module.output_layer()
        assert none is None
        return module.logits(features), features @ kernel

    logits, expected = jax.jit(lambda params: model.apply(params, method=run))(
        {"params": params_of(model)}
    )
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_initial_loss_is_half_a_nat_above_that_of_guessing():
    """Logits of unit variance, and the logarithm of E[exp(x)] is 1/2.

    A tied table begins with a liking for the token that was read last, which costs more.
    """
    fields = {"vocab_size": 1009, "width": 64, "num_encoder_layers": 1, "num_decoder_layers": 1}
    model = OLD.clone(**fields, tie_embeddings=False)
    rng = np.random.default_rng(3)
    source, target = (jnp.asarray(rng.integers(0, 1009, (16, n)), jnp.int32) for n in (S, T + 1))

    @jax.jit
    def loss(key):
        logits = model.apply(model.init(key, source, target[:, :-1]), source, target[:, :-1])
        return cross_entropy(logits, target[:, 1:]).nll.mean()

    np.testing.assert_allclose(loss(jax.random.key(0)), math.log(1009) + 0.5, rtol=0.03)


def test_initial_queries_make_up_for_logits_that_are_not_scaled():
    model = T5(vocab_size=2, num_encoder_layers=1, num_decoder_layers=1, num_heads=4, width=256)
    params = jax.jit(model.init)(jax.random.key(0), SOURCE, TARGET)["params"]
    params = jax.tree.map(np.asarray, jax.tree.map(lambda x: x.value, params, is_leaf=_is_box))
    attention = params["encoder"]["layer_0"]["attention"]
    deviations = {name: part["kernel"].std() for name, part in attention.items()}
    expected = {"query": (256 * 64) ** -0.5, "key": 1 / 16, "value": 1 / 16, "output": 1 / 16}
    for name, value in expected.items():
        np.testing.assert_allclose(deviations[name], value, rtol=0.03)


@pytest.mark.parametrize(("given", "expected"), [(None, 1 / 16), (4.0, 4.0)])
def test_initial_biases_of_positions(given, expected):
    fields = {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_heads": 64, "head_dim": 2}
    model = T5(vocab_size=2, width=256, position_init_scale=given, **fields)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), SOURCE, TARGET)["params"])
    for stack in ("encoder_positions", "decoder_positions"):
        np.testing.assert_allclose(params[stack]["embedding"].std(), expected, rtol=0.05)


def _is_box(leaf):
    return hasattr(leaf, "names")


@both
@pytest.mark.parametrize("changed", [1, T - 1])
def test_a_later_token_does_not_change_earlier_logits(model, changed):
    before = logits_of(model)
    after = logits_of(model, target=other_tokens(TARGET, changed))
    np.testing.assert_array_equal(before[:, :changed], after[:, :changed])
    assert (np.abs(before - after).max(-1) > 1e-4)[:, changed:].all()


@both
def test_order_matters_on_both_sides(model):
    before = logits_of(model)
    turned = logits_of(model, source=SOURCE[:, ::-1])
    assert (np.abs(before - turned).max(-1) > 1e-4).all()
    swapped = TARGET.at[:, :2].set(TARGET[:, 1::-1])
    last = np.abs(before - logits_of(model, target=swapped))[:, -1].max(-1)
    assert last[TARGET[:, 0] != TARGET[:, 1]].min() > 1e-4


def test_only_differences_of_positions_matter():
    layout = layout_of(S, T)
    moved = {name: x + 3 * name.endswith("positions") for name, x in layout.items()}
    np.testing.assert_allclose(logits_of(OLD), logits_of(OLD, layout=moved), atol=1e-6)
    spread = {name: x * (1 + name.endswith("source_positions")) for name, x in layout.items()}
    assert np.abs(logits_of(OLD) - logits_of(OLD, layout=spread)).max() > 1e-3


@both
def test_padding_changes_nothing(model):
    padded = logits_of(model, layout=layout_of(6, 6))
    alone = compiled(model)({"params": params_of(model)}, SOURCE[:, :6], TARGET[:, :6])
    np.testing.assert_allclose(padded[:, :6], alone, atol=1e-5)
    source, target = SOURCE.at[:, 6:].set(0), TARGET.at[:, 6:].set(0)
    other = logits_of(model, source, target, layout_of(6, 6))
    np.testing.assert_array_equal(padded[:, :6], other[:, :6])


def packed_logits(model, pairs, rows):
    """Of rows of pairs; with its end token a pair has at most S and T tokens."""
    sides = (Sentences([np.asarray(pair[side]) for pair in pairs], end=0) for side in (0, 1))
    batch = lay_out(TokenPairs(*sides), rows, 3, S, positions=True, target_length=T)
    del batch["labels"]
    return logits_of(model, batch.pop("source"), batch.pop("target"), batch)


@both
def test_packed_is_alone(model):
    pairs = [(SOURCE[0, :4], TARGET[0, :2]), (SOURCE[1, :3], TARGET[1, :4])]
    packed, first, second = packed_logits(model, pairs, [[0, 1], [0], [1]])
    np.testing.assert_allclose(packed[:3], first[:3], atol=1e-5)
    np.testing.assert_allclose(packed[3:], second[:5], atol=1e-5)


@both
def test_scanned_is_unrolled(model):
    params = dict(params_of(model))
    for stack in ("encoder", "decoder"):
        layers = [params[stack][f"layer_{index}"] for index in range(2)]
        params[stack] = {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
    scanned = computing(model, scan_layers=True)
    layout = layout_of([9, 6, 3], [2, 8, 5])
    logits = jax.jit(scanned.apply)({"params": params}, SOURCE, TARGET, **layout)
    np.testing.assert_allclose(logits, logits_of(model, layout=layout), atol=1e-5)


@both
def test_cached_is_full(model):
    """Token by token, each row at positions of its own, in slots that are no positions."""
    starts = jnp.array([[0], [2], [5]])
    # Even slots: those of another beam lie between, and are never seen.
    slots = jnp.arange(2 * T)
    keys = jnp.where(slots % 2, 1000, starts + slots // 2)

    def begin(module):
        cache, mask = module.empty_cache(3, 2 * T), causal()
        memory = module.encode(SOURCE)
        return module.decode(TARGET[:, :1], memory, mask=mask, memory_mask=None, cache=cache)[1]

    def step(module, cache, place):
        positions = starts + place
        features, cache = module.decode(
            jax.lax.dynamic_slice_in_dim(TARGET, place, 1, axis=1),
            None,
            mask=causal() & at_positions(positions, keys),
            memory_mask=None,
            positions=positions,
            slots=jnp.full((3, 1), 2 * place),
            cache=cache,
        )
        return module.logits(features), cache

    variables = {"params": params_of(model)}
    cache = jax.jit(functools.partial(model.apply, method=begin))(variables)
    advance = jax.jit(functools.partial(model.apply, method=step))
    found = []
    for place in range(T):
        logits, cache = advance(variables, cache, place)
        found.append(logits)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), logits_of(model), atol=1e-5)


def test_slots_of_a_cache_are_positions_by_default():
    def read_in_two_parts(module):
        memory, cache = module.encode(SOURCE), module.empty_cache(3, T + 3)
        found = []
        for part in (slice(0, 5), slice(5, T)):
            positions = jnp.broadcast_to(jnp.arange(T)[part], (3, part.stop - part.start))
            features, cache = module.decode(
                TARGET[:, part],
                None if found else memory,
                mask=causal() & at_positions(positions),
                memory_mask=None,
                positions=positions,
                cache=cache,
            )
            found.append(module.logits(features))
        return jnp.concatenate(found, axis=1)

    read = jax.jit(functools.partial(NEW.apply, method=read_in_two_parts))
    np.testing.assert_allclose(read({"params": params_of(NEW)}), logits_of(NEW), atol=1e-5)


def test_every_text_begins_with_the_token_that_the_model_begins_with():
    rows, segments = jnp.full((2, 5), 7), jnp.array([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1]])
    assert NEW.begun(rows, segments).tolist() == [[0, 7, 0, 7, 0], [0, 7, 7, 7, 7]]
    assert NEW.begun(rows).tolist() == [[0, 7, 7, 7, 7]] * 2
    assert OLD.begun(rows, segments) is rows


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    model, variables = computing(NEW, dtype="bfloat16"), {"params": params_of(NEW)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TARGET)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    encode = functools.partial(model.apply, method="encode")
    assert jax.eval_shape(encode, variables, SOURCE).dtype == jnp.bfloat16
    logits = jax.jit(model.apply)(variables, SOURCE, TARGET)
    assert logits.dtype == jnp.float32
    expected = logits_of(NEW)
    assert np.abs(logits - expected).mean() < 0.03 * np.abs(expected).mean()


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"num_encoder_layers": 0}, ["num_encoder_layers"]),
        ({"num_heads": 5}, ["num_heads", "5", "width", "512", "head_dim"]),
        ({"head_dim": 0}, ["head_dim"]),
        ({"num_buckets": 7}, ["num_buckets", "7", "even"]),
        ({"num_buckets": 2}, ["num_buckets"]),
        ({"max_distance": 16}, ["max_distance", "16"]),
        ({"begin_id": -1}, ["begin_id"]),
        ({"begin_id": 9, "vocab_size": 9}, ["begin_id", "vocab_size"]),
        ({"compute": Compute(attention="blockwise")}, ["attention", "einsum"]),
        ({"activation": "swish"}, ["activation", "relu"]),
        ({"dropout_rate": 1.0}, ["dropout_rate"]),
    ],
    ids=str,
)
def test_check_names_the_field(fields, names):
    with pytest.raises(ConfigError) as error:
        require_allowed("model", T5(**fields))
    for name in names:
        assert name in str(error.value)


def test_check_accepts_the_defaults_and_wide_heads():
    require_allowed("model", T5())
    require_allowed("model", T5(num_heads=5, head_dim=7, begin_id=0))


def test_a_vocabulary_is_needed():
    with pytest.raises(ConfigError, match="vocab_size"):
        jax.eval_shape(T5().init, jax.random.key(0), SOURCE, TARGET)
