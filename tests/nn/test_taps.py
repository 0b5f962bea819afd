import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import AnyMethod, noisy_parameters
from transformer.models.gemma import Gemma
from transformer.models.gpt import GPT
from transformer.models.t5 import T5
from transformer.models.vit import ViT
from transformer.nn.compute import Compute
from transformer.nn.layouts import laid_out_like, stacked, unstacked
from transformer.nn.taps import EDITS, RECORDED, tap

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 7)))
SIZES = {"num_layers": 2, "num_heads": 4, "width": 16}
GPTS = functools.partial(GPT, vocab_size=11, context=8, **SIZES)
GEMMAS = functools.partial(
    Gemma,
    vocab_size=11,
    context=8,
    num_kv_heads=2,
    window=3,
    global_every=2,
    feed_forward_width=24,
    attention_cap=5.0,
    **SIZES,
)
IMAGES = ViT(num_outputs=3, channels=3, image_size=8, patch_size=4, **SIZES)
PAIRS = T5(11, 1, 1, 2, 8, 12)
CASES = {
    "gpt": (GPTS(), "__call__", (TOKENS,)),
    "gpt scanned": (GPTS(compute=Compute(scan_layers=True, remat="full")), "__call__", (TOKENS,)),
    "gemma scanned": (GEMMAS(compute=Compute(scan_layers=True)), "__call__", (TOKENS,)),
    "vit": (IMAGES, "classify", (jnp.zeros((1, 8, 8, 3)),)),
    "t5": (PAIRS, "__call__", (TOKENS, TOKENS)),
}


@functools.cache
def program(model):
    return jax.jit(functools.partial(model.apply, mutable=[RECORDED]))


def recorded(model, params, *inputs, edits=None, **named):
    variables = {"params": params} if edits is None else {"params": params, EDITS: edits}
    outputs, found = program(model)(variables, *inputs, **named)
    return outputs, found[RECORDED]


@pytest.mark.parametrize("case", CASES)
def test_programs_are_the_same_without_taps(case, monkeypatch):
    model, method, inputs = CASES[case]
    params = noisy_parameters(AnyMethod(model, method), *inputs)

    def programs():
        def score(params):
            rngs = {"dropout": jax.random.key(0)}
            found = model.apply({"params": params}, *inputs, method=method, rngs=rngs)
            return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(found))

        return jax.jit(jax.value_and_grad(score)).lower(params).as_text()

    tapped = programs()
    patched = 0
    for module in list(sys.modules.values()):
        if getattr(module, "tap", None) is tap and module.__name__ != tap.__module__:
            monkeypatch.setattr(module, "tap", lambda module, name, x: x)
            patched += 1
    assert patched > 8
    assert programs() == tapped


def test_what_is_recorded_is_what_was_computed():
    model = GPTS()
    params = noisy_parameters(model, TOKENS)
    (logits, _), found = recorded(model, params, TOKENS)
    plain, _ = jax.jit(model.apply)({"params": params}, TOKENS)
    np.testing.assert_allclose(logits, plain, atol=1e-5)
    total = found["token_embedding"] + found["position_embedding"]
    np.testing.assert_array_equal(total, found["blocks"]["layer_0"]["residual_before"])
    np.testing.assert_array_equal(
        found["blocks"]["layer_0"]["residual_after"], found["blocks"]["layer_1"]["residual_before"]
    )
    layer = found["blocks"]["layer_1"]
    middle = layer["residual_before"] + layer["attention_output"]
    np.testing.assert_allclose(middle, layer["residual_middle"], atol=1e-6)
    after = layer["residual_middle"] + layer["feed_forward_output"]
    np.testing.assert_allclose(after, layer["residual_after"], atol=1e-6)
    attention = layer["attention"]
    products = np.einsum("btnh,bsnh->bnts", attention["query"], attention["key"]) / 2.0
    np.testing.assert_allclose(attention["scores"], products, atol=1e-5)
    scores = np.where(attention["visible"], attention["scores"], -np.inf)
    np.testing.assert_allclose(attention["weights"], jax.nn.softmax(scores), atol=1e-6)
    mixed = np.einsum("bnts,bsnh->btnh", attention["weights"], attention["value"])
    np.testing.assert_allclose(attention["mixed"], mixed, atol=1e-5)


@pytest.mark.parametrize("make", [GPTS, GEMMAS], ids=["gpt", "gemma"])
def test_scanned_records_what_unrolled_does(make):
    params = noisy_parameters(make(), TOKENS)
    _, unrolled = recorded(make(), params, TOKENS)
    looped = recorded(make(compute=Compute(scan_layers=True)), stacked(params), TOKENS)[1]
    looped = unstacked(looped)
    assert jax.tree.structure(looped) == jax.tree.structure(dict(unrolled))
    for one, other in zip(*map(jax.tree.leaves, (unrolled, looped)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_cached_records_what_whole_passes_do():
    model = GEMMAS()
    params = noisy_parameters(model, TOKENS)
    _, whole = recorded(model, params, TOKENS)
    cache = model.empty_cache(2, 8)
    for place in range(TOKENS.shape[1]):
        positions = jnp.full((2, 1), place)
        (_, cache), found = recorded(
            model, params, TOKENS[:, place : place + 1], positions=positions, cache=cache
        )
        for layer in ("layer_0", "layer_1"):
            step, all_steps = found["blocks"][layer], whole["blocks"][layer]
            weights = step["attention"].pop("weights")[:, :, 0]
            expected = all_steps["attention"]["weights"][:, :, place]
            # A layer with a window keeps no more positions than that, each in its slot.
            kept = np.arange(max(0, place - weights.shape[-1] + 1), place + 1)
            seen = weights[..., kept % weights.shape[-1]]
            np.testing.assert_allclose(seen, expected[..., kept], atol=1e-5)
            np.testing.assert_allclose(np.sum(expected[..., kept], axis=-1), 1.0, atol=1e-5)
            for name in ("query", "key", "value", "mixed"):
                one = step["attention"][name][:, 0]
                np.testing.assert_allclose(one, all_steps["attention"][name][:, place], atol=1e-5)
            for name in ("residual_before", "residual_after", "feed_forward_output"):
                np.testing.assert_allclose(step[name][:, 0], all_steps[name][:, place], atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_edits_are_made_where_they_are_asked_for(scan):
    model = GPTS()
    params = noisy_parameters(model, TOKENS)
    keep = np.ones((2, 4, 1), np.float32)
    keep[1, 2] = 0.0
    mask = np.zeros((2, 1, 7, 1), bool)
    mask[0, :, 3] = True
    edits = {
        "blocks": {
            f"layer_{layer}": {
                "attention": {"mixed": {"scale": keep[layer]}},
                "residual_middle": {"mask": mask[layer], "value": np.float32(2.0)},
            }
            for layer in range(2)
        }
    }
    _, clean = recorded(model, params, TOKENS)
    if scan:
        model, params = GPTS(compute=Compute(scan_layers=True)), stacked(params)
        edits = laid_out_like(edits, params)
    (logits, _), found = recorded(model, params, TOKENS, edits=edits)
    found = unstacked(found)["blocks"]
    middle = found["layer_0"]["residual_middle"]
    assert np.all(middle[:, 3] == 2.0)
    np.testing.assert_allclose(
        middle[:, 4:], clean["blocks"]["layer_0"]["residual_middle"][:, 4:], atol=1e-5
    )
    mixed = found["layer_1"]["attention"]["mixed"]
    assert np.all(mixed[:, :, 2] == 0.0)
    assert np.all(np.abs(mixed[:, :, [0, 1, 3]]).sum(-1) > 0.0)
    # Without recording, the same is computed.
    found, _ = jax.jit(model.apply)({"params": params, EDITS: edits}, TOKENS)
    np.testing.assert_allclose(found, logits, atol=1e-5)


def test_editing_weights_chooses_the_reference():
    model = GPTS(compute=Compute(attention="blockwise"))
    params = noisy_parameters(model, TOKENS)
    edits = {"blocks": {"layer_0": {"attention": {"weights": {"scale": np.zeros(())}}}}}
    variables = {"params": params, EDITS: edits}
    logits, _ = jax.jit(model.apply)(variables, TOKENS)
    _, found = recorded(model, params, TOKENS, edits=edits)
    assert np.all(found["blocks"]["layer_0"]["attention"]["mixed"] == 0.0)
    plain, _ = jax.jit(model.apply)({"params": params}, TOKENS)
    assert np.abs(np.asarray(logits - plain)).max() > 1e-3
