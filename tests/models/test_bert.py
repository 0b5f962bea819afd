import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.interop.opening import read_published
from transformer.models.bert import BERT
from transformer.nn.compute import Compute, computing
from transformer.training.selection import from_paths

TINY = BERT(
    vocab_size=31,
    num_outputs=3,
    num_layers=2,
    num_heads=2,
    width=16,
    context=12,
    feed_forward_width=24,
    dropout_rate=0.0,
)
B, T = 3, 9
LENGTHS = np.array([T, 5, 7], np.int32)
REAL = np.arange(T) < LENGTHS[:, None]
TOKENS = jnp.asarray(np.where(REAL, np.random.default_rng(0).integers(1, 31, (B, T)), 0), "int32")
# The second sentence begins at place 3.
TYPES = jnp.asarray(REAL & (np.arange(T) >= 3), "int32")
PLACES = jnp.array([[1, 8], [4, 2], [0, 6]], "int32")
INPUTS = (TOKENS, TYPES, jnp.asarray(LENGTHS))

SIZES = {
    "tiny": (4_385_920, {"num_layers": 2, "width": 128, "num_heads": 2}),
    "mini": (11_170_560, {"num_layers": 4, "width": 256, "num_heads": 4}),
    "small": (28_763_648, {"num_layers": 4, "width": 512, "num_heads": 8}),
    "medium": (41_373_184, {"num_layers": 8, "width": 512, "num_heads": 8}),
    "base": (109_482_240, {}),
    "large": (335_141_888, {"num_layers": 24, "width": 1024, "num_heads": 16}),
}


def with_pooler(model, tokens):
    return model.pooled(model(tokens))


def everything(model, tokens, token_types, lengths, places):
    """All that there is to compute, the encoder called once."""
    features = model(tokens, token_types, lengths)
    masked = model.masked(features, places)
    return {
        "features": features,
        "pooled": model.pooled(features),
        "masked": masked,
        "logits": model.logits(masked),
        "follows": model.follows(features),
        "classes": model.output(model.pooled(features)),
        "tags": model.output(features),
    }


@functools.cache
def parameters():
    """Of all methods."""
    made = types.SimpleNamespace(init=functools.partial(TINY.init, method=everything))
    return noisy_parameters(made, *INPUTS, PLACES)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compiled(model, method, params, inputs, rngs):
    return model.apply({"params": params}, *inputs, method=method, rngs=rngs)


def ours(method, *inputs, model=TINY, params=None, rngs=None):
    params = parameters() if params is None else params
    return jax.tree.map(np.asarray, compiled(model, method, params, inputs, rngs or {}))


def all_of(tokens=TOKENS, token_types=TYPES, lengths=LENGTHS, **options):
    """By one program for each model."""
    return ours(everything, tokens, token_types, jnp.asarray(lengths), PLACES, **options)


def shapes_of(tree):
    return jax.tree.map(lambda x: x.shape, tree)


def count(shapes):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


# -------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("size", SIZES)
def test_numbers_of_parameters_are_the_published_ones(size):
    expected, fields = SIZES[size]
    # Scanned, for it is traced sooner; of `base` both ways.
    for scan in {True, size != "base"}:
        model = BERT(vocab_size=30_522, compute=Compute(scan_layers=scan), **fields)
        init = functools.partial(model.init, method=with_pooler)
        assert count(jax.eval_shape(init, jax.random.key(0), TOKENS)) == expected


def test_number_of_parameters_with_both_heads_of_pretraining():
    model = BERT(vocab_size=30_522, compute=Compute(scan_layers=True))
    init = functools.partial(model.init, method="pretrain")
    shapes = jax.eval_shape(init, jax.random.key(0), *INPUTS, PLACES)
    assert count(shapes) == 110_106_428 == 109_482_240 + 624_188


ENCODER = {"token_embedding", "position_embedding", "type_embedding", "embedding_norm", "blocks"}


@pytest.mark.parametrize(
    ("method", "heads"),
    [
        ("__call__", set()),
        ("fill", {"masked_token"}),
        ("pretrain", {"masked_token", "pooler", "next_sentence"}),
        ("classify", {"pooler", "output"}),
        ("tag", {"output"}),
    ],
)
def test_parameters_exist_for_the_method_that_is_called(method, heads):
    inputs = (*INPUTS, PLACES) if method in ("fill", "pretrain") else INPUTS
    init = functools.partial(TINY.init, method=method)
    assert set(jax.eval_shape(init, jax.random.key(0), *inputs)["params"]) == ENCODER | heads


def test_parameters_without_vocabulary():
    with pytest.raises(ConfigError, match=r"config\.model\.vocab_size"):
        jax.eval_shape(BERT().init, jax.random.key(0), TOKENS)


# ------------------------------------------------------------------------------ computation


def test_padding_does_not_change_real_tokens():
    found = all_of()
    alone = ours("__call__", TOKENS[1:2, :5], TYPES[1:2, :5])
    np.testing.assert_allclose(found["features"][1, :5], alone[0], atol=1e-5)
    changed = all_of(jnp.where(REAL, TOKENS, 17), jnp.where(REAL, TYPES, 1))
    np.testing.assert_array_equal(changed["features"][REAL], found["features"][REAL])
    np.testing.assert_array_equal(changed["follows"], found["follows"])


@pytest.mark.parametrize("place", [0, 4])
def test_every_token_sees_every_real_one(place):
    tokens = TOKENS.at[:, place].set(TOKENS[:, place] % 30 + 1)
    difference = all_of(tokens)["features"] - all_of()["features"]
    assert (np.abs(difference).max(-1) > 1e-4)[REAL].all()


def test_types_are_zero_and_rows_are_full_unless_said_otherwise():
    default = ours("__call__", TOKENS)
    full = np.full(B, T, np.int32)
    zero, one = (all_of(token_types=jnp.full_like(TOKENS, kind), lengths=full) for kind in (0, 1))
    np.testing.assert_allclose(default, zero["features"], atol=1e-5)
    assert np.abs(default - one["features"]).max() > 0.1


def test_methods_agree():
    def by_jobs(model, *inputs):
        return {
            "logits": model.fill(*inputs),
            "pretraining": model.pretrain(*inputs),
            "classes": model.classify(*inputs[:3]),
            "tags": model.tag(*inputs[:3]),
        }

    found, jobs = all_of(), ours(by_jobs, *INPUTS, PLACES)
    for name in ("logits", "classes", "tags"):
        np.testing.assert_allclose(jobs[name], found[name], atol=1e-5)
    for scores, name in zip(jobs["pretraining"], ("logits", "follows"), strict=True):
        np.testing.assert_allclose(scores, found[name], atol=1e-5)
    kernel, bias = TINY.apply({"params": parameters()}, method="output_layer")
    np.testing.assert_allclose(found["masked"] @ kernel + bias, found["logits"], atol=1e-5)


def test_scanned_is_unrolled():
    params = parameters()
    layers = [params["blocks"][f"layer_{index}"] for index in range(TINY.num_layers)]
    stacked = {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
    model, params = computing(TINY, scan_layers=True), {**params, "blocks": stacked}
    scanned = ours("__call__", *INPUTS, model=model, params=params)
    np.testing.assert_allclose(scanned, all_of()["features"], atol=1e-5)


def test_blockwise_is_einsum():
    # So short that it is einsum unless told otherwise.
    assert TINY.chosen_attention(TOKENS) == "einsum"
    blockwise = ours("__call__", *INPUTS, model=computing(TINY, attention="blockwise"))
    np.testing.assert_allclose(blockwise[REAL], all_of()["features"][REAL], atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "length", "expected"),
    [
        ({}, 512, "einsum"),
        ({"dropout_rate": 0.0}, 512, "blockwise"),
        ({"dropout_rate": 0.0}, 128, "einsum"),
        ({"compute": Compute(attention="blockwise"), "dropout_rate": 0.0}, 128, "blockwise"),
    ],
    ids=str,
)
def test_chosen_attention(fields, length, expected):
    assert BERT(**fields).chosen_attention(jnp.zeros((1, length), "int32")) == expected


def test_bfloat16_keeps_parameters_and_scores_in_float32():
    model = computing(TINY, dtype="bfloat16")
    init = functools.partial(model.init, method=everything)
    shapes = jax.eval_shape(init, jax.random.key(0), *INPUTS, PLACES)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    found, exact = all_of(model=model), all_of()
    assert found["features"].dtype == jnp.bfloat16
    for name in ("logits", "follows"):
        assert found[name].dtype == np.float32
        assert np.isfinite(found[name]).all()
        assert np.abs(found[name] - exact[name]).mean() < 0.05 * np.abs(exact[name]).mean()
    for method in ("classify", "tag"):
        apply = functools.partial(model.apply, method=method)
        scores = jax.eval_shape(apply, {"params": parameters()}, *INPUTS)
        assert scores.dtype == np.float32


def test_dropout_is_on_exactly_with_a_key():
    first = {"layer_0": parameters()["blocks"]["layer_0"]}
    params = {**parameters(), "blocks": first}
    classify = functools.partial(ours, "classify", *INPUTS, params=params)
    plain = TINY.clone(num_layers=1)
    model = plain.clone(dropout_rate=0.3)
    # Of the generator whose programs compile soonest.
    key = {"dropout": jax.random.key(0, impl="rbg")}
    without = classify(model=model)
    np.testing.assert_allclose(without, classify(model=plain), atol=1e-5)
    assert np.abs(classify(model=model, rngs=key) - without).max() > 0.1


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"num_layers": 0}, ["num_layers"]),
        ({"num_heads": 0}, ["num_heads"]),
        ({"width": -4}, ["width"]),
        ({"context": 2}, ["context", "3"]),
        ({"num_types": 0}, ["num_types"]),
        ({"vocab_size": 0}, ["vocab_size"]),
        ({"feed_forward_width": 0}, ["feed_forward_width"]),
        ({"width": 10, "num_heads": 3}, ["width", "num_heads", "10", "3"]),
        ({"dropout_rate": 1.0}, ["dropout_rate"]),
        ({"activation": "swish"}, ["activation", "gelu_tanh"]),
        ({"compute": Compute(dtype="float64")}, ["dtype", "bfloat16"]),
        ({"compute": Compute(remat="all")}, ["remat", "full"]),
        ({"compute": Compute(attention="flash")}, ["attention", "einsum", "auto"]),
    ],
    ids=str,
)
def test_check_names_the_field(fields, names):
    with pytest.raises(ConfigError) as error:
        require_allowed("model", BERT(**fields))
    for name in ("config.model.", *names):
        assert name in str(error.value)


def test_check_accepts_the_defaults():
    require_allowed("model", BERT())


# ------------------------------------------------------------------------------- equivalence


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model of `transformers` by the name of its class, and what we read of its files."""
    torch = pytest.importorskip("torch", reason="the published BERT is in PyTorch")
    transformers = pytest.importorskip("transformers", reason="it has the published BERT")
    pytest.importorskip("safetensors", reason="weights are read from its files")

    @functools.cache
    def make(name):
        config = transformers.BertConfig(
            vocab_size=31,
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_size=16,
            intermediate_size=24,
            max_position_embeddings=12,
            initializer_range=0.2,
            num_labels=2 if name == "BertForQuestionAnswering" else 3,
        )
        torch.manual_seed(0)
        theirs = getattr(transformers, name)(config).eval()
        with torch.no_grad():
            for path, weight in theirs.named_parameters():
                if path.endswith("bias") or "LayerNorm" in path:
                    weight.add_(0.1 * torch.randn_like(weight))
            found = theirs(
                input_ids=torch.tensor(np.array(TOKENS)).long(),
                token_type_ids=torch.tensor(np.array(TYPES)).long(),
                attention_mask=torch.tensor(REAL).long(),
            )
        folder = tmp_path_factory.mktemp(name)
        theirs.save_pretrained(folder)
        read = read_published(folder)
        assert not read.unused
        scores = {key: value.numpy() for key, value in found.items()}
        return scores, read

    return make


def all_as_published(read):
    """What we compute with the weights; of heads that they lack, nothing."""
    assert BERT(**read.model).clone(num_outputs=3, dropout_rate=0.0) == TINY
    params = from_paths(read.params)
    assert shapes_of(params).items() <= shapes_of(parameters()).items()
    # One program for all: heads that are not there are filled in.
    return all_of(params={**parameters(), **jax.tree.map(jnp.asarray, params)})


@pytest.mark.filterwarnings("ignore")
def test_states_are_those_of_transformers(published):
    expected, read = published("BertModel")
    assert set(from_paths(read.params)) == ENCODER | {"pooler"}
    found = all_as_published(read)
    states = expected["last_hidden_state"]
    np.testing.assert_allclose(found["features"][REAL], states[REAL], atol=1e-5)
    np.testing.assert_allclose(found["pooled"], expected["pooler_output"], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_scores_of_pretraining_are_those_of_transformers(published):
    expected, read = published("BertForPreTraining")
    heads = {"pooler", "masked_token", "next_sentence"}
    assert set(from_paths(read.params)) == ENCODER | heads
    found = all_as_published(read)
    places = np.array(PLACES)[..., None]
    logits = np.take_along_axis(expected["prediction_logits"], places, axis=1)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(found["follows"], expected["seq_relationship_logits"], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_scores_of_classes_are_those_of_transformers(published):
    expected, read = published("BertForSequenceClassification")
    assert set(from_paths(read.params)) == ENCODER | {"pooler", "output"}
    found = all_as_published(read)["classes"]
    np.testing.assert_allclose(found, expected["logits"], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_scores_of_tokens_are_those_of_transformers(published):
    expected, read = published("BertForTokenClassification")
    assert set(from_paths(read.params)) == ENCODER | {"output"}
    found = all_as_published(read)["tags"]
    np.testing.assert_allclose(found[REAL], expected["logits"][REAL], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_scores_of_answers_are_those_of_transformers(published):
    expected, read = published("BertForQuestionAnswering")
    assert read.labels == ("start", "end")
    model = BERT(**read.model)
    found = ours("tag", *INPUTS, model=model, params=from_paths(read.params))
    for index, name in enumerate(["start_logits", "end_logits"]):
        np.testing.assert_allclose(found[..., index][REAL], expected[name][REAL], atol=1e-5)
