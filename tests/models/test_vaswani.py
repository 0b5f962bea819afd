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
from transformer.models.vaswani import Vaswani
from transformer.nn.compute import Compute, computing
from transformer.ops.losses import cross_entropy
from transformer.training.selection import by_path

TINY = Vaswani(
    vocab_size=11,
    num_encoder_layers=2,
    num_decoder_layers=2,
    num_heads=2,
    width=16,
    feed_forward_width=32,
    dropout_rate=0.0,
)
S, T = 9, 8


def tokens(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).integers(1, 11, shape), jnp.int32)


SOURCE, TARGET = tokens(0, 3, S), tokens(1, 3, T)


@functools.cache
def params_of(order):
    return noisy_parameters(TINY.clone(norm_order=order), SOURCE, TARGET)


@functools.cache
def compiled(order):
    return jax.jit(TINY.clone(norm_order=order).apply)


def layout_of(source_lengths, target_lengths):
    """One pair to a row, and what is behind its lengths is padding."""
    layout = {}
    for side, length, used in (("source", S, source_lengths), ("target", T, target_lengths)):
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (3, length))
        layout[f"{side}_positions"] = positions
        layout[f"{side}_segments"] = (positions < np.reshape(used, (-1, 1))).astype(np.int32)
    return layout


def logits_of(order, source=SOURCE, target=TARGET, layout=None, params=None):
    """Of three rows, by one program that is compiled once."""
    layout = layout_of(S, T) if layout is None else layout
    variables = {"params": params_of(order) if params is None else params}
    return np.asarray(compiled(order)(variables, source, target, **layout))


def other_tokens(ids, place):
    """Another token at a place of every row."""
    return ids.at[:, place].set(ids[:, place] % 10 + 1)


def both_orders(test):
    return pytest.mark.parametrize("order", ["pre", "post"])(test)


def by_hand(vocab_size, width, hidden, order):
    attention = 4 * (width * width + width)
    feed_forward = width * hidden + hidden + hidden * width + width
    norm = 2 * width
    encoder = 6 * (attention + feed_forward + 2 * norm)
    decoder = 6 * (2 * attention + feed_forward + 3 * norm)
    return vocab_size * width + encoder + decoder + (2 * norm if order == "pre" else 0)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 63_082_496),
        ({"width": 1024, "feed_forward_width": 4096, "num_heads": 16}, 214_245_376),
        ({"norm_order": "pre"}, 63_082_496 + 4 * 512),
    ],
    ids=["base", "big", "base, pre"],
)
def test_number_of_parameters(fields, expected, scan):
    model = Vaswani(vocab_size=37_000, compute=Compute(scan_layers=scan), **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TARGET)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected
    width, hidden = model.width, model.feed_forward_width
    assert by_hand(37_000, width, hidden, model.norm_order) == expected


def test_one_table_embeds_both_sides_and_is_the_output_layer():
    params = params_of("post")
    leaves = jax.tree_util.tree_leaves_with_path(params)
    tables = [jax.tree_util.keystr(path) for path, leaf in leaves if 11 in leaf.shape]
    assert tables == ["['token_embedding']['embedding']"]
    kernel, none = TINY.apply({"params": params}, method="output_layer")
    np.testing.assert_array_equal(kernel, params["token_embedding"]["embedding"].T)
    assert none is None
    # The vector of token 0, which is in no text, makes its logits and nothing else.
    before = logits_of("post")
    table = params["token_embedding"]["embedding"].at[0].multiply(2.0)
    after = logits_of("post", params={**params, "token_embedding": {"embedding": table}})
    np.testing.assert_allclose(after[..., 0], 2.0 * before[..., 0], rtol=1e-5)
    np.testing.assert_array_equal(after[..., 1:], before[..., 1:])
    # That of a token in the source and the target changes what the others get as well.
    table = params["token_embedding"]["embedding"].at[SOURCE[0, 0]].multiply(2.0)
    after = logits_of("post", params={**params, "token_embedding": {"embedding": table}})
    assert (np.abs(after - before)[0].max(-1) > 1e-3).all()


def test_initial_loss_is_half_a_nat_above_that_of_guessing():
    """Logits of a tied table have unit variance, and the logarithm of E[exp(x)] is 1/2."""
    fields = {"vocab_size": 1009, "width": 64, "num_encoder_layers": 1, "num_decoder_layers": 1}
    model = TINY.clone(**fields)
    rng = np.random.default_rng(3)
    source, target = (jnp.asarray(rng.integers(0, 1009, (16, n)), jnp.int32) for n in (S, T + 1))

    @jax.jit
    def loss(key):
        logits = model.apply(model.init(key, source, target[:, :-1]), source, target[:, :-1])
        return cross_entropy(logits, target[:, 1:]).nll.mean()

    np.testing.assert_allclose(loss(jax.random.key(0)), math.log(1009) + 0.5, rtol=0.03)


@pytest.mark.parametrize(("order", "columns"), [("pre", 64), ("post", 3 * 64)])
def test_initial_kernels_follow_glorot(order, columns):
    """Queries, keys and values of post-norm as one matrix, the others each by itself."""
    model = TINY.clone(width=64, norm_order=order)
    layers = jax.jit(model.init)(jax.random.key(0), SOURCE, TARGET)["params"]
    found = {
        path: np.std(leaf)
        for path, leaf in by_path(nn.meta.unbox(layers)).items()
        if "attention/" in path and path.endswith("kernel")
    }
    for path, deviation in found.items():
        outputs = 64 if path.endswith("output/kernel") else columns
        np.testing.assert_allclose(
            deviation, math.sqrt(2 / (64 + outputs)), rtol=0.06, err_msg=path
        )
    assert any("cross_attention" in path for path in found)


@both_orders
@pytest.mark.parametrize("changed", [1, 4, T - 1])
def test_a_later_token_does_not_change_earlier_logits(order, changed):
    before = logits_of(order)
    after = logits_of(order, target=other_tokens(TARGET, changed))
    np.testing.assert_array_equal(before[:, :changed], after[:, :changed])
    assert (np.abs(before - after).max(-1) > 1e-4)[:, changed:].all()


@both_orders
@pytest.mark.parametrize("changed", [0, S - 1])
def test_every_token_of_the_source_matters_everywhere(order, changed):
    after = logits_of(order, source=other_tokens(SOURCE, changed))
    assert (np.abs(logits_of(order) - after).max(-1) > 1e-4).all()


@both_orders
def test_padding_changes_nothing(order):
    """A padded row has the logits of the row by itself, for which no layout is given."""
    padded = logits_of(order, layout=layout_of(6, 6))
    alone = compiled(order)({"params": params_of(order)}, SOURCE[:, :6], TARGET[:, :6])
    np.testing.assert_allclose(padded[:, :6], alone, atol=1e-5)
    source, target = SOURCE.at[:, 6:].set(0), TARGET.at[:, 6:].set(0)
    other = logits_of(order, source, target, layout_of(6, 6))
    np.testing.assert_array_equal(padded[:, :6], other[:, :6])


def packed_logits(order, pairs, rows):
    """Of rows of pairs; with its end token a pair has at most S and T tokens."""
    sides = (Sentences([np.asarray(pair[side]) for pair in pairs], end=0) for side in (0, 1))
    batch = lay_out(TokenPairs(*sides), rows, 3, S, positions=True)
    del batch["labels"]
    batch = {name: x if "source" in name else x[:, :T] for name, x in batch.items()}
    return logits_of(order, batch.pop("source"), batch.pop("target"), batch)


PAIRS = [(SOURCE[0, :4], TARGET[0, :2]), (SOURCE[1, :3], TARGET[1, :4])]


@both_orders
def test_packed_is_alone(order):
    packed, first, second = packed_logits(order, PAIRS, [[0, 1], [0], [1]])
    np.testing.assert_allclose(packed[:3], first[:3], atol=1e-5)
    np.testing.assert_allclose(packed[3:], second[:5], atol=1e-5)


@both_orders
@pytest.mark.parametrize("changed", [0, 1])
def test_packed_pairs_do_not_see_each_other(order, changed):
    changed_pair = tuple(side % 10 + 1 for side in PAIRS[changed])
    others = [changed_pair if index == changed else pair for index, pair in enumerate(PAIRS)]
    before, after = (packed_logits(order, pairs, [[0, 1]])[0] for pairs in (PAIRS, others))
    places = [slice(0, 3), slice(3, 8)]
    np.testing.assert_array_equal(before[places[1 - changed]], after[places[1 - changed]])
    assert (np.abs(before - after)[places[changed]].max(-1) > 1e-3).all()


@both_orders
def test_scanned_is_unrolled(order):
    params = dict(params_of(order))
    for stack in ("encoder", "decoder"):
        layers = [params[stack][f"layer_{index}"] for index in range(2)]
        params[stack] = {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
    scanned = TINY.clone(norm_order=order, compute=Compute(scan_layers=True))
    layout = layout_of([9, 6, 3], [2, 8, 5])
    logits = jax.jit(scanned.apply)({"params": params}, SOURCE, TARGET, **layout)
    np.testing.assert_allclose(logits, logits_of(order, layout=layout), atol=1e-5)


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    model, variables = computing(TINY, dtype="bfloat16"), {"params": params_of("post")}
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TARGET)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    block = functools.partial(model.apply, method="encode")
    assert jax.eval_shape(block, variables, SOURCE).dtype == jnp.bfloat16
    logits = jax.jit(model.apply)(variables, SOURCE, TARGET)
    assert logits.dtype == jnp.float32
    expected = logits_of("post")
    assert np.abs(logits - expected).mean() < 0.03 * np.abs(expected).mean()


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"num_encoder_layers": 0}, ["num_encoder_layers"]),
        ({"num_decoder_layers": 0}, ["num_decoder_layers"]),
        ({"num_heads": 0}, ["num_heads"]),
        ({"width": -4}, ["width"]),
        ({"feed_forward_width": 0}, ["feed_forward_width"]),
        ({"width": 15, "num_heads": 3}, ["width", "15", "even"]),
        ({"width": 10, "num_heads": 4}, ["width", "num_heads", "10", "4"]),
        ({"dropout_rate": 1.0}, ["dropout_rate"]),
        ({"norm_order": "middle"}, ["norm_order", "post", "pre"]),
        ({"activation": "swish"}, ["activation", "relu"]),
        ({"compute": Compute(dtype="float64")}, ["dtype", "bfloat16"]),
        ({"compute": Compute(remat="all")}, ["remat", "full"]),
        ({"compute": Compute(attention="flash")}, ["attention", "einsum", "auto"]),
    ],
    ids=str,
)
def test_check_names_the_field(fields, names):
    with pytest.raises(ConfigError) as error:
        require_allowed("model", Vaswani(**fields))
    for name in names:
        assert name in str(error.value)


def test_check_accepts_the_defaults():
    require_allowed("model", Vaswani())


def test_a_vocabulary_is_needed():
    with pytest.raises(ConfigError, match="vocab_size"):
        jax.eval_shape(Vaswani().init, jax.random.key(0), SOURCE, TARGET)


def torch_layer(torch, kind, params, order):
    """One layer of PyTorch with our weights; its kernels are `[out, in]`."""
    make = getattr(torch.nn, f"Transformer{kind}Layer")
    layer = make(16, 2, 32, dropout=0.0, batch_first=True, norm_first=order == "pre")
    parts = {"self_attn": "attention", "norm1": "attention_norm", "norm2": "feed_forward_norm"}
    if kind == "Decoder":
        parts |= {"multihead_attn": "cross_attention", "norm2": "cross_attention_norm"}
        parts |= {"norm3": "feed_forward_norm"}
    weights = {}
    for theirs, name in parts.items():
        ours = params[name]
        if "norm" in name:
            weights |= {f"{theirs}.weight": ours["scale"], f"{theirs}.bias": ours["bias"]}
            continue
        joined = [ours[part]["kernel"].reshape(16, 16).T for part in ("query", "key", "value")]
        biases = [ours[part]["bias"].reshape(16) for part in ("query", "key", "value")]
        weights[f"{theirs}.in_proj_weight"] = np.concatenate(joined)
        weights[f"{theirs}.in_proj_bias"] = np.concatenate(biases)
        weights[f"{theirs}.out_proj.weight"] = ours["output"]["kernel"].reshape(16, 16).T
        weights[f"{theirs}.out_proj.bias"] = ours["output"]["bias"]
    for theirs, name in (("linear1", "up"), ("linear2", "down")):
        ours = params["feed_forward"][name]
        weights |= {f"{theirs}.weight": ours["kernel"].T, f"{theirs}.bias": ours["bias"]}
    layer.load_state_dict({name: torch.tensor(np.array(x)) for name, x in weights.items()})
    return layer


def embed(table, ids):
    """Sections 3.4 and 3.5 of the paper, feature by feature."""
    _, width = table.shape
    x = np.asarray(table, np.float64)[ids] * math.sqrt(width)
    for position in range(ids.shape[1]):
        for pair in range(width // 2):
            angle = position / 10_000 ** (2 * pair / width)
            x[:, position, 2 * pair] += math.sin(angle)
            x[:, position, 2 * pair + 1] += math.cos(angle)
    return x.astype(np.float32)


@both_orders
@pytest.mark.filterwarnings("ignore")
def test_logits_are_those_of_pytorch(order):
    torch = pytest.importorskip("torch", reason="its transformer layers are compared with ours")
    params, layout = params_of(order), layout_of([9, 6, 3], T)
    table = np.array(params["token_embedding"]["embedding"])
    padding = torch.tensor(layout["source_segments"] == 0)

    def finish(x, name):
        if order == "post":
            return x
        scale, bias = (torch.tensor(np.array(params[name][part])) for part in ("scale", "bias"))
        return torch.nn.functional.layer_norm(x, (16,), scale, bias)

    with torch.no_grad():
        memory, x = (torch.tensor(embed(table, np.array(ids))) for ids in (SOURCE, TARGET))
        for index in range(2):
            layer = torch_layer(torch, "Encoder", params["encoder"][f"layer_{index}"], order)
            memory = layer(memory, src_key_padding_mask=padding)
        memory = finish(memory, "encoder_norm")
        later = torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)
        for index in range(2):
            layer = torch_layer(torch, "Decoder", params["decoder"][f"layer_{index}"], order)
            x = layer(x, memory, tgt_mask=later, memory_key_padding_mask=padding)
        expected = (finish(x, "decoder_norm") @ torch.tensor(table).T).numpy()
    np.testing.assert_allclose(logits_of(order, layout=layout), expected, atol=1e-5)


def test_a_bias_of_tokens_is_in_both_output_layers():
    model = TINY.clone(token_bias=True, num_encoder_layers=1, num_decoder_layers=1, begin_id=3)
    params = noisy_parameters(model, SOURCE, TARGET)

    def both(module):
        features = module.features(SOURCE, TARGET)
        kernel, bias = module.output_layer()
        return module.logits(features), features @ kernel + bias

    logits, again = jax.jit(nn.apply(both, model))({"params": params})
    np.testing.assert_allclose(logits, again, atol=1e-5)
    assert np.abs(params["output_bias"]).max() > 0.01
    assert model.begin_token() == 3
    assert model.unwritten_tokens() == (3,)
    assert TINY.unwritten_tokens() == ()


@pytest.mark.parametrize("begin", [-1, 11])
def test_what_begins_is_a_token(begin):
    with pytest.raises(ConfigError, match="begin_id"):
        require_allowed("model", TINY.clone(begin_id=begin))
