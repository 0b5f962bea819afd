import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_equal
from transformer.errors import ConfigError
from transformer.models.bert import BERT
from transformer.models.gpt import GPT
from transformer.models.t5 import T5
from transformer.models.vaswani import Vaswani
from transformer.models.vit import ViT
from transformer.nn.compute import Compute
from transformer.training.lora import LoRA, with_adapters
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
    boxed = make(compute=Compute(scan_layers=True))
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


def vit(method="classify", *inputs, **fields):
    fields = {"num_outputs": 5, "pooling": "class", "num_registers": 2, **fields}
    sizes = {"image_size": 8, "patch_size": 4, "channels": 3, "num_heads": 2, "width": 8}
    model = ViT(**sizes, num_layers=3, **fields)
    init = functools.partial(model.init, method=method)
    images = jnp.zeros((1, 8, 8, 3))
    return jax.eval_shape(lambda key: init(key, images, *inputs), jax.random.key(0))["params"]


def get_layer_id_for_vit(name, num_layers):
    """As published with BEiT (Bao et al. 2022, `optim_factory.py`) and MAE (`lr_decay.py`)."""
    if name in ("cls_token", "mask_token", "pos_embed"):
        return 0
    if name.startswith("patch_embed"):
        return 0
    if name.startswith("blocks"):
        return int(name.split(".")[1]) + 1
    return num_layers


# Our names in those of BEiT and timm; neither has registers, which DINOv2 has beside `cls_token`.
THEIRS = {
    "class_token": "cls_token",
    "distillation_token": "cls_token",
    "registers": "cls_token",
    "position_embedding/embedding": "pos_embed",
    "patch_embedding": "patch_embed",
}


@pytest.mark.parametrize("stem", ["patches", "convolutions"])
@pytest.mark.parametrize("scan", [False, True])
def test_factors_of_vit_are_those_of_beit_and_mae(scan, stem):
    boxed = vit(compute=Compute(scan_layers=scan), distillation="two", stem=stem)
    factors, num_layers, seen = rate_factors(boxed, 0.75, ""), 3 + 1, set()
    assert set(THEIRS) - {"patch_embedding"} <= factors.keys()
    for path, factor in factors.items():
        if scan and path.startswith("blocks/"):
            names = [path.replace("blocks/layers/", f"blocks.{layer}.") for layer in range(3)]
        else:
            name = path.replace("blocks/layer_", "blocks.").replace("/", ".", 1)
            names = [THEIRS.get(path, THEIRS.get(path.split("/")[0], name))]
        places = [get_layer_id_for_vit(name, num_layers) for name in names]
        expected = [0.75 ** (num_layers - place) for place in places]
        np.testing.assert_allclose(np.ravel(factor), expected, rtol=1e-6, err_msg=path)
        seen |= set(places)
    assert seen == {0, 1, 2, 3, 4}


def test_the_inputs_of_a_decoder_of_patches_are_embeddings():
    """Its stack is deeper than the encoder's; all embeddings stand below it."""
    order = jnp.arange(4)[None]
    heads = {"decoder_layers": 5, "decoder_width": 8, "decoder_heads": 2}
    sizes = {"image_size": 8, "patch_size": 4, "channels": 3, "num_heads": 2, "width": 8}
    model = ViT(**sizes, num_layers=3, **heads)

    def init(key):
        images = jnp.zeros((1, 8, 8, 3))
        return model.init(key, images, order, 2, method="reconstruct")["params"]

    factors = rate_factors(jax.eval_shape(init, jax.random.key(0)), 0.5, "")
    for path in ("class_token", "decoder/mask_token", "decoder/embedding/kernel"):
        assert factors[path] == 0.5**6, path
    assert factors["blocks/layer_2/feed_forward/up/kernel"] == 0.5
    assert factors["decoder/blocks/layer_0/feed_forward/up/kernel"] == 0.5**5
    assert factors["decoder/pixels/kernel"] == factors["final_norm/scale"] == 1.0


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(("make", "depths"), [(Vaswani, (2, 3)), (T5, (3, 1))])
def test_each_stack_counts_from_its_own_top(make, depths, scan):
    model = make(
        **SIZES,
        feed_forward_width=8,
        num_encoder_layers=depths[0],
        num_decoder_layers=depths[1],
        compute=Compute(scan_layers=scan),
    )
    factors = rate_factors(boxes(model, TOKENS, TOKENS), 0.5, "")
    for stack, depth in zip(("encoder", "decoder"), depths, strict=True):
        expected = [0.5 ** (depth - layer) for layer in range(depth)]
        own = {path: f for path, f in factors.items() if path.startswith(f"{stack}/")}
        if scan:
            found = [np.ravel(factor) for factor in own.values()]
        else:
            path = "feed_forward/up/kernel"
            found = [[own[f"{stack}/layer_{n}/{path}"] for n in range(depth)]]
        for factor in found:
            np.testing.assert_array_equal(factor, expected)
    tables = [factor for path, factor in factors.items() if path.endswith("embedding")]
    assert len(tables) == (3 if make is T5 else 1)
    assert set(tables) == {0.5**4}


def test_layers_that_are_not_trained_count_too():
    boxed = gpt()
    moving, _ = split(boxed, lambda path: not path.startswith(("blocks/layer_2", "output")))
    factors = rate_factors(moving, 0.5, "", boxed)
    whole = rate_factors(boxed, 0.5, "")
    assert factors == {path: whole[path] for path in factors}
    assert factors["blocks/layer_1/feed_forward/up/kernel"] == 0.25


@pytest.mark.parametrize("scan", [False, True])
def test_adapters_have_the_factors_of_their_layers(scan):
    boxed = gpt(compute=Compute(scan_layers=scan))
    config = LoRA(rank=2, targets="query/kernel" if scan else "layer_1/attention/query/kernel")
    adapted = jax.eval_shape(lambda boxed: with_adapters(boxed, config, jax.random.key(0)), boxed)
    moving, _ = split(adapted, lambda path: path.startswith("lora/"))
    factors = rate_factors(moving, 0.5, "", adapted)
    assert len(factors) == 2
    for factor in factors.values():
        np.testing.assert_array_equal(np.ravel(factor), [0.125, 0.25, 0.5] if scan else [0.25])


def test_without_a_decay_all_factors_are_one():
    for scan in (False, True):
        assert set(rate_factors(gpt(compute=Compute(scan_layers=scan)), 1.0, "").values()) == {1.0}


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
    factors = rate_factors(gpt(compute=Compute(scan_layers=scan)), 0.5, "query=4,embedding=0.5")
    layer = "layers" if scan else "layer_1"
    found = np.ravel(factors[f"blocks/{layer}/attention/query/kernel"])
    np.testing.assert_array_equal(found, [0.5, 1.0, 2.0] if scan else [1.0])
    assert factors["token_embedding/embedding"] == 0.5**5


@pytest.mark.parametrize(
    "rule", ["output", "output=", "output=ten", "=3", "output=-1", "x=1=nan", "x=inf", "x=1e39"]
)
def test_malformed_rules_are_refused(rule):
    with pytest.raises(ConfigError, match=r"config\.optimizer\.rate_scales holds.*PATTERN=FACTOR"):
        rate_factors(gpt(), 1.0, f"final_norm=2,{rule}")


def test_rules_that_say_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"rate_scales is 'head', which matches no parameter"):
        rate_factors(gpt(), 1.0, "head=2")
    with pytest.raises(ConfigError, match=r"rate_scales.*no regular expression"):
        rate_factors(gpt(), 1.0, "(=2")
