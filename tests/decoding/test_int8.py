"""Weights and caches in 8 bits: scores are close, and the room is a quarter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from tests.decoding.test_sample import tokens_of
from transformer.decoding.sample import OneByOne
from transformer.decoding.speculation import Lookup, Speculative
from transformer.errors import ConfigError
from transformer.models.gemma import Gemma
from transformer.models.llama import Llama
from transformer.models.mixtral import Mixtral
from transformer.nn.caches import KVCache, RollingCache, in_int8
from transformer.nn.compute import Compute, computing
from transformer.nn.int8 import weights_in_int8
from transformer.ops.int8 import Int8, rounded
from transformer.ops.logits import Sampling

SIZES = {"vocab_size": 11, "num_layers": 2, "num_heads": 2, "width": 16, "context": 32}
SIZES |= {"num_kv_heads": 1, "feed_forward_width": 16}
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 12)))
GREEDY = Sampling(temperature=0.0)


@pytest.mark.parametrize("empty", [KVCache.empty, RollingCache.empty])
def test_a_cache_gives_back_what_it_has_rounded(empty):
    rng = np.random.default_rng(0)
    cache = in_int8(empty(2, 4, 1, 8, "float32"))
    keys, values = jnp.asarray(rng.normal(size=(2, 2, 3, 1, 8)), jnp.float32)
    for kept in range(3):
        places = jnp.full((2, 1), kept)
        where = slice(kept, kept + 1)
        cache, seen = cache.extended(keys[:, where], values[:, where], places)
    assert cache.key.numbers.dtype == jnp.int8
    assert cache.key.scales.shape == (2, 1, 4, 1)
    for found, given in ((seen.key, keys), (seen.value, values)):
        np.testing.assert_allclose(found[:, :3], rounded(given, -1).restored("float32"))


def gemma():
    """Tied tables, windows by turns, scanned layers."""
    model = Gemma(**SIZES, window=4, global_every=2, compute=Compute(scan_layers=True))
    return model, noisy_parameters(model, TOKENS, scale=0.1)


def test_scores_are_those_of_the_restored_weights():
    model, params = gemma()
    small = weights_in_int8(model, params)
    layers = jax.tree.leaves(small, is_leaf=lambda x: isinstance(x, Int8))
    shapes = {x.shape: x.scales.shape for x in layers if isinstance(x, Int8)}
    assert shapes == {
        (11, 16): (11, 1),
        (2, 16, 2, 8): (2, 1, 2, 8),
        (2, 16, 1, 8): (2, 1, 1, 8),
        (2, 2, 8, 16): (2, 1, 1, 16),
        (2, 16, 16): (2, 1, 16),
    }

    def restored(x):
        return x.restored("float32") if isinstance(x, Int8) else x

    same = jax.tree.map(restored, small, is_leaf=lambda x: isinstance(x, Int8))
    given, expected, found = (
        jax.jit(model.apply)({"params": p}, TOKENS)[0] for p in (params, same, small)
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert 0.005 < jnp.abs(found - given).max() < 0.1


def test_separate_output_layers_and_biases():
    model = Llama(**SIZES, qkv_bias=True)
    params = weights_in_int8(model, noisy_parameters(model, TOKENS))
    assert isinstance(params["output"]["kernel"], Int8)
    assert not isinstance(params["blocks"]["layer_0"]["attention"]["query"]["bias"], Int8)


def test_guesses_leave_the_text_as_it_is():
    model = Llama(**SIZES | {"num_layers": 1}, window=4)
    params = weights_in_int8(model, noisy_parameters(model, TOKENS))
    prompts = [np.array([1, 2, 3]), np.array([4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4])]
    writers = (
        OneByOne(model, params, GREEDY, in_int8),
        Speculative(model, params, GREEDY, Lookup(3, 2), kept=in_int8),
    )
    plain, guessed = (
        tokens_of(model, params, prompts, 12, chunk=12, writer=writer) for writer in writers
    )
    np.testing.assert_array_equal(guessed, plain)


def test_mixtures_are_refused():
    model = Mixtral(**SIZES, num_experts=2)
    with pytest.raises(ConfigError, match="mixtures of experts"):
        weights_in_int8(model, jax.eval_shape(model.init, jax.random.key(0), TOKENS)["params"])


def test_one_product_of_queries_keys_and_values_has_the_same_scores():
    model, params = gemma()
    params = weights_in_int8(model, params)
    fused = computing(model, fused_qkv=True)
    scores, expected = (jax.jit(m.apply)({"params": params}, TOKENS)[0] for m in (fused, model))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
