import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_equal
from transformer.errors import ConfigError
from transformer.models.bert import BERT
from transformer.models.gpt import GPT
from transformer.models.vaswani import Vaswani
from transformer.training.selection import (
    by_path,
    chooser,
    compiled_pattern,
    everything,
    from_paths,
    join,
    rate_factors,
    split,
)

TREE = {
    "output": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
    "blocks": {
        "layer_0": {"norm": {"scale": jnp.arange(2.0)}},
        "layer_1": {"norm": {"scale": jnp.arange(3.0)}},
    },
}
TOKENS = jnp.zeros((1, 4), jnp.int32)
SIZES = {"vocab_size": 11, "num_heads": 2, "width": 8}


def boxes(model, *inputs, **options):
    return jax.eval_shape(lambda key: model.init(key, *inputs, **options), jax.random.key(0))[
        "params"
    ]


def gpt(**fields):
    fields = {"num_layers": 3, "context": 4, "tie_embeddings": False, **fields}
    return boxes(GPT(**SIZES, **fields), TOKENS)


def bert(**fields):
    fields = {"num_layers": 3, "context": 4, "num_outputs": 5, **fields}
    return boxes(BERT(**SIZES, **fields), TOKENS, method="classify")


@pytest.mark.parametrize("pattern", ["", "kernel", "^blocks/", "layer_1|bias", "."])
def test_joining_undoes_splitting(pattern):
    inside, outside = split(TREE, chooser(pattern, "optimizer.frozen", TREE))
    assert_trees_equal(join(inside, outside), TREE)
    assert_trees_equal(join(outside, inside), TREE)
    assert by_path(inside).keys().isdisjoint(by_path(outside))


def test_a_pattern_matches_anywhere_in_a_path():
    chosen = chooser("er_1/|^output/k", "optimizer.frozen", TREE)
    assert set(by_path(split(TREE, chosen)[0])) == {"output/kernel", "blocks/layer_1/norm/scale"}


def test_everything_leaves_nothing_over():
    inside, outside = split(TREE, everything)
    assert outside == {}
    assert_trees_equal(inside, TREE)
    assert split(TREE, chooser("", "optimizer.frozen", TREE))[0] == {}


def test_paths_and_back():
    assert set(by_path(TREE)) == {
        "output/kernel",
        "output/bias",
        "blocks/layer_0/norm/scale",
        "blocks/layer_1/norm/scale",
    }
    assert_trees_equal(from_paths(by_path(TREE)), TREE)


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"config\.lora\.targets is 'layr'.*output/kernel"):
        chooser("layr", "lora.targets", TREE)


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"config\.init\.new is '\(x'.*no regular expression"):
        compiled_pattern("(x", "init.new")
    with pytest.raises(ConfigError, match=r"config\.init\.new"):
        chooser("(x", "init.new", TREE)


# The place of each module of GPT and BERT with three layers, counted from the embeddings.
PLACES = {
    "token_embedding": 0,
    "position_embedding": 0,
    "type_embedding": 0,
    "embedding_norm": 0,
    "blocks/layer_0": 1,
    "blocks/layer_1": 2,
    "blocks/layer_2": 3,
    "final_norm": 4,
    "pooler": 4,
    "output": 4,
}


def expected_place(path):
    (place,) = (place for module, place in PLACES.items() if path.startswith(f"{module}/"))
    return place


@pytest.mark.parametrize("make", [gpt, bert])
def test_factors_of_layers(make):
    factors = rate_factors(make(), 0.5, "")
    assert {path.split("/")[0] for path in factors} >= {"token_embedding", "blocks", "output"}
    for path, factor in factors.items():
        assert factor == 0.5 ** (4 - expected_place(path)), path


@pytest.mark.parametrize("make", [gpt, bert])
def test_stacked_layers_have_a_factor_each(make):
    boxed = make(scan_layers=True)
    shapes = by_path(nn.meta.unbox(boxed))
    unrolled, stacked = rate_factors(make(), 0.5, ""), rate_factors(boxed, 0.5, "")
    for path, factor in stacked.items():
        if not path.startswith("blocks/"):
            assert factor == unrolled[path], path
            continue
        full = np.broadcast_to(factor, shapes[path].shape)
        for layer in range(3):
            of_layer = unrolled[path.replace("/layers/", f"/layer_{layer}/")]
            np.testing.assert_array_equal(full[layer], of_layer, err_msg=path)


@pytest.mark.parametrize("scan", [False, True])
def test_the_shorter_of_two_stacks_begins_at_the_same_place(scan):
    model = Vaswani(
        **SIZES,
        feed_forward_width=8,
        num_encoder_layers=2,
        num_decoder_layers=3,
        scan_layers=scan,
    )
    factors = rate_factors(boxes(model, TOKENS, TOKENS), 0.5, "")
    for stack, expected in (("encoder", [0.125, 0.25]), ("decoder", [0.125, 0.25, 0.5])):
        own = {path: f for path, f in factors.items() if path.startswith(f"{stack}/")}
        if scan:
            found = [np.ravel(factor) for factor in own.values()]
        else:
            path = "feed_forward/up/kernel"
            found = [[own[f"{stack}/layer_{n}/{path}"] for n in range(len(expected))]]
        for factor in found:
            np.testing.assert_array_equal(factor, expected)


def test_without_a_decay_all_factors_are_one():
    for scan in (False, True):
        assert set(rate_factors(gpt(scan_layers=scan), 1.0, "").values()) == {1.0}


def test_the_first_rule_that_matches_counts():
    factors = rate_factors(gpt(), 1.0, "output/kernel$=10, output/=3 ,layer_1=0")
    assert factors["output/kernel"] == 10
    assert factors["blocks/layer_0/attention/output/bias"] == 3
    assert factors["blocks/layer_1/attention/query/bias"] == 0
    # Of a rule that matches further down, the earlier one is heard.
    assert factors["blocks/layer_1/attention/output/bias"] == 3
    assert factors["final_norm/scale"] == 1


@pytest.mark.parametrize("scan", [False, True])
def test_rules_and_decay_multiply(scan):
    factors = rate_factors(gpt(scan_layers=scan), 0.5, "query=4,embedding=0.5")
    layer = "layers" if scan else "layer_1"
    found = np.ravel(factors[f"blocks/{layer}/attention/query/kernel"])
    np.testing.assert_array_equal(found, [0.5, 1.0, 2.0] if scan else [1.0])
    assert factors["token_embedding/embedding"] == 0.5**5


@pytest.mark.parametrize("rule", ["output", "output=", "output=ten", "=3", "output=-1", "x=1=nan"])
def test_malformed_rules_are_refused(rule):
    with pytest.raises(ConfigError, match=r"config\.optimizer\.rate_scales holds.*PATTERN=FACTOR"):
        rate_factors(gpt(), 1.0, f"final_norm=2,{rule}")


def test_rules_that_say_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"rate_scales is 'head', which matches no parameter"):
        rate_factors(gpt(), 1.0, "head=2")
    with pytest.raises(ConfigError, match=r"rate_scales.*no regular expression"):
        rate_factors(gpt(), 1.0, "(=2")
