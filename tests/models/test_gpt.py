import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.gpt import GPT
from transformer.nn.compute import Compute, computing
from transformer.ops.losses import cross_entropy

CHARACTER = {
    "vocab_size": 6148,
    "qkv_bias": False,
    "tie_embeddings": False,
    "output_bias": True,
    "activation": "relu",
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({**CHARACTER, "num_layers": 3, "num_heads": 4, "width": 32, "context": 8}, 437_764),
        (
            {**CHARACTER, "num_layers": 6, "num_heads": 6, "width": 384, "context": 256},
            15_466_756,
        ),
        ({"vocab_size": 50257}, 124_439_808),
        ({"vocab_size": 50257, "compute": Compute(scan_layers=True)}, 124_439_808),
    ],
    ids=["tiny", "small", "GPT-2", "GPT-2 scanned"],
)
def test_number_of_parameters(fields, expected):
    tokens = jnp.zeros((1, 8), int)
    shapes = jax.eval_shape(GPT(**fields).init, jax.random.key(0), tokens)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected


@pytest.mark.parametrize("tied", [False, True])
def test_initial_loss_is_that_of_guessing(tied):
    model = GPT(
        vocab_size=101, num_layers=2, num_heads=2, width=32, context=16, tie_embeddings=tied
    )
    tokens = jax.random.randint(jax.random.key(1), (8, 17), 0, 101)

    @jax.jit
    def loss(key):
        variables = model.init(key, tokens[:, :-1])
        logits, _ = model.apply(variables, tokens[:, :-1])
        return cross_entropy(logits, tokens[:, 1:]).nll.mean()

    np.testing.assert_allclose(loss(jax.random.key(0)), math.log(101), rtol=0.02)


def random_tokens(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 11, shape), jnp.int32)


@pytest.mark.parametrize("changed", [1, 8, 15])
def test_a_later_token_does_not_change_earlier_logits(gpt_logits, changed):
    tokens = random_tokens(0, 2, 16)
    before = gpt_logits(tokens)
    after = gpt_logits(tokens.at[:, changed].set((tokens[:, changed] + 1) % 11))
    np.testing.assert_array_equal(before[:, :changed], after[:, :changed])
    assert (np.abs(before - after).max(-1) > 1e-4)[:, changed:].all()


def test_a_prefix_has_the_logits_of_the_whole(gpt_logits):
    tokens = random_tokens(0, 2, 16)
    np.testing.assert_allclose(gpt_logits(tokens[:, :7]), gpt_logits(tokens)[:, :7], atol=1e-5)


SEGMENTS = jnp.array([[0] * 6 + [1] * 10])


@pytest.fixture(scope="module")
def packed_logits(gpt, gpt_params):
    """Logits of two documents in a row, compiled once."""

    @jax.jit
    def logits(tokens, positions):
        return gpt.apply({"params": gpt_params}, tokens, positions=positions, segment_ids=SEGMENTS)[
            0
        ]

    return lambda tokens, positions=None: logits(tokens, positions)


def test_first_document_of_a_packed_row_is_alone(packed_logits, gpt_logits):
    tokens = random_tokens(0, 1, 16)
    alone = gpt_logits(tokens)[:, :6]
    np.testing.assert_allclose(packed_logits(tokens)[:, :6], alone, atol=1e-5)


def test_later_documents_do_not_see_earlier_ones(packed_logits):
    tokens = random_tokens(0, 1, 16)
    other = tokens.at[:, :6].set((tokens[:, :6] + 1) % 11)
    packed, changed = packed_logits(tokens), packed_logits(other)
    np.testing.assert_array_equal(packed[:, 6:], changed[:, 6:])
    assert (packed[:, :6] != changed[:, :6]).any()


def test_packed_is_separate(packed_logits, gpt_logits):
    tokens = random_tokens(0, 1, 16)
    packed = packed_logits(tokens, jnp.concatenate([jnp.arange(6), jnp.arange(10)])[None])
    np.testing.assert_allclose(packed[:, :6], gpt_logits(tokens[:, :6]), atol=1e-5)
    np.testing.assert_allclose(packed[:, 6:], gpt_logits(tokens[:, 6:]), atol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def features_and_logits(model, params, tokens):
    features, _ = model.apply({"params": params}, tokens, method="features")
    return features, model.apply({"params": params}, tokens)[0]


def test_bfloat16_keeps_parameters_and_logits_in_float32(gpt, gpt_params, gpt_logits):
    model, tokens = computing(gpt, dtype="bfloat16"), random_tokens(0, 2, 16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    features, logits = features_and_logits(model, gpt_params, tokens)
    assert features.dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32
    expected = gpt_logits(tokens)
    assert np.abs(logits - expected).mean() < 0.03 * np.abs(expected).mean()


@pytest.mark.parametrize(
    "fields",
    [{}, {"tie_embeddings": False}, {"tie_embeddings": False, "output_bias": True}],
    ids=["tied", "own", "own with bias"],
)
def test_output_layer_makes_the_logits(gpt, fields):
    model, tokens = gpt.clone(**fields), random_tokens(0, 1, 5)
    params = noisy_parameters(model, tokens)
    features, logits = features_and_logits(model, params, tokens)
    kernel, bias = model.apply({"params": params}, method="output_layer")
    expected = features @ kernel + (0 if bias is None else bias)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert (bias is not None) == fields.get("output_bias", False)


def test_scanned_is_unrolled(gpt, gpt_params, gpt_logits):
    blocks = gpt_params["blocks"]
    layers = [blocks[f"layer_{index}"] for index in range(gpt.num_layers)]
    stacked = {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
    tokens = random_tokens(0, 2, 16)
    scanned = computing(gpt, scan_layers=True)
    logits, _ = scanned.apply({"params": {**gpt_params, "blocks": stacked}}, tokens)
    np.testing.assert_allclose(logits, gpt_logits(tokens), atol=1e-5)


def test_dropout_is_on_exactly_with_a_key(gpt, gpt_params, gpt_logits):
    model, tokens = gpt.clone(dropout_rate=0.3), random_tokens(0, 2, 16)

    @jax.jit
    def logits(rngs):
        return model.apply({"params": gpt_params}, tokens, rngs=rngs)[0]

    without, with_key = logits({}), logits({"dropout": jax.random.key(0)})
    np.testing.assert_allclose(without, gpt_logits(tokens), atol=1e-5)
    assert np.abs(with_key - without).max() > 0.1


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"num_layers": 0}, ["num_layers"]),
        ({"num_heads": 0}, ["num_heads"]),
        ({"width": -4}, ["width"]),
        ({"context": 0}, ["context"]),
        ({"width": 10, "num_heads": 3}, ["width", "num_heads", "10", "3"]),
        ({"output_bias": True}, ["output_bias", "tie_embeddings"]),
        ({"dropout_rate": 1.0}, ["dropout_rate"]),
        ({"dropout_rate": -0.1}, ["dropout_rate"]),
        ({"activation": "swish"}, ["activation", "gelu_tanh"]),
        ({"compute": Compute(dtype="float64")}, ["dtype", "bfloat16"]),
        ({"compute": Compute(remat="all")}, ["remat", "full"]),
        ({"compute": Compute(attention="flash")}, ["attention", "einsum", "auto"]),
    ],
    ids=str,
)
def test_check_names_the_field(fields, names):
    with pytest.raises(ConfigError) as error:
        require_allowed("model", GPT(**fields))
    for name in names:
        assert name in str(error.value)


def test_check_accepts_the_defaults():
    require_allowed("model", GPT())


def imported(theirs, num_heads):
    """The weights of Hugging Face's GPT-2 in our tree; its kernels are `[in, out]` too."""
    weights = {name: jnp.asarray(x.numpy()) for name, x in theirs.state_dict().items()}
    width = weights["transformer.wte.weight"].shape[1]
    head_dim = width // num_heads

    def pair(prefix, *shape):
        kernel, bias = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
        return {"kernel": kernel.reshape(*shape) if shape else kernel, "bias": bias}

    def norm(prefix):
        return {"scale": weights[f"{prefix}.weight"], "bias": weights[f"{prefix}.bias"]}

    def layer(prefix):
        joined = pair(f"{prefix}.attn.c_attn")
        kernels = jnp.split(joined["kernel"], 3, axis=1)
        biases = jnp.split(joined["bias"], 3)
        attention = {
            name: {
                "kernel": kernel.reshape(width, num_heads, head_dim),
                "bias": bias.reshape(num_heads, head_dim),
            }
            for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True)
        }
        attention["output"] = pair(f"{prefix}.attn.c_proj", num_heads, head_dim, width)
        return {
            "attention": attention,
            "attention_norm": norm(f"{prefix}.ln_1"),
            "feed_forward": {
                "up": pair(f"{prefix}.mlp.c_fc"),
                "down": pair(f"{prefix}.mlp.c_proj"),
            },
            "feed_forward_norm": norm(f"{prefix}.ln_2"),
        }

    num_layers = theirs.config.n_layer
    return {
        "token_embedding": {"embedding": weights["transformer.wte.weight"]},
        "position_embedding": {"embedding": weights["transformer.wpe.weight"]},
        "blocks": {f"layer_{i}": layer(f"transformer.h.{i}") for i in range(num_layers)},
        "final_norm": norm("transformer.ln_f"),
    }


def shapes_of(tree):
    return jax.tree.map(lambda x: x.shape, tree)


@pytest.mark.filterwarnings("ignore")
def test_logits_are_those_of_hugging_face():
    torch = pytest.importorskip("torch", reason="the published GPT-2 is in PyTorch")
    transformers = pytest.importorskip("transformers", reason="it has the published GPT-2")
    config = transformers.GPT2Config(
        vocab_size=31, n_layer=3, n_head=4, n_embd=32, n_positions=16, initializer_range=0.2
    )
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if name.endswith("bias") or ".ln_" in name:
                weight.add_(0.1 * torch.randn_like(weight))
        tokens = torch.randint(0, 31, (2, 16))
        expected = theirs(tokens).logits.numpy()

    ours = GPT(vocab_size=31, num_layers=3, num_heads=4, width=32, context=16)
    params = imported(theirs, num_heads=4)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros((1, 16), int))["params"]
    assert shapes_of(params) == shapes_of(nn.meta.unbox(shapes))
    logits, _ = jax.jit(ours.apply)({"params": params}, tokens.numpy())
    np.testing.assert_allclose(logits, expected, atol=1e-4)
