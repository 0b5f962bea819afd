import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.llama import Llama
from transformer.nn.compute import Compute
from transformer.ops.positions import RotaryScaling

TINY = {
    "vocab_size": 11,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "width": 16,
    "context": 16,
    "feed_forward_width": 24,
}
TOKENS = jnp.asarray(np.random.default_rng(0).integers(11, size=(2, 9)))
# As published.
COUNTS = {
    6_738_415_616: {"vocab_size": 32_000, "num_layers": 32, "num_heads": 32, "width": 4096}
    | {"feed_forward_width": 11_008},
    8_030_261_248: {"vocab_size": 128_256, "num_layers": 32, "num_heads": 32, "width": 4096}
    | {"num_kv_heads": 8, "feed_forward_width": 14_336},
    7_241_732_096: {"vocab_size": 32_000, "num_layers": 32, "num_heads": 32, "width": 4096}
    | {"num_kv_heads": 8, "feed_forward_width": 14_336},
    72_706_203_648: {"vocab_size": 152_064, "num_layers": 80, "num_heads": 64, "width": 8192}
    | {"num_kv_heads": 8, "feed_forward_width": 29_568, "qkv_bias": True},
}


@pytest.mark.parametrize("count", COUNTS)
def test_published_counts(count):
    model = Llama(**COUNTS[count], compute=Compute(scan_layers=True))
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("changes", [{}, {"head_norm": True, "qkv_bias": True, "window": 3}])
def test_cached_is_whole(changes):
    model = Llama(**TINY, **changes)
    params = noisy_parameters(model, TOKENS)
    whole, _ = jax.jit(model.apply)({"params": params}, TOKENS)
    step = jax.jit(
        lambda token, position, cache: model.apply(
            {"params": params}, token, positions=position, cache=cache
        )
    )
    cache = model.empty_cache(2, 16)
    assert cache[0].key.shape == (2, 2, changes.get("window", 16), 4)
    for place in range(TOKENS.shape[1]):
        positions = jnp.full((2, 1), place)
        logits, cache = step(TOKENS[:, place : place + 1], positions, cache)
        np.testing.assert_allclose(logits[:, 0], whole[:, place], atol=1e-5)


def test_scaled_rotations():
    frequencies = np.array([1.0, 0.2, 0.1, 0.01], np.float32)
    found = RotaryScaling(8.0, 1.0, 4.0, 64)(jnp.asarray(frequencies))
    rounds = 64 * frequencies / (2 * np.pi)  # 10.2, 2.04, 1.02, 0.1
    kept = (rounds[1:3] - 1) / 3
    between = kept * frequencies[1:3] + (1 - kept) * frequencies[1:3] / 8
    np.testing.assert_allclose(found, [1.0, *between, 0.01 / 8], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_heads": 3, "num_kv_heads": 3}, "heads must divide"),
        ({"num_kv_heads": 3}, "num_kv_heads"),
        ({"head_dim": 3}, "odd"),
        ({"window": 0}, "config.model.window"),
        ({"activation": "sine"}, "config.model.activation"),
        ({"rope_factor": 2.0, "rope_low_frequency": 4.0}, "rope_low_frequency"),
    ],
)
def test_values_that_cannot_work(fields, said):
    with pytest.raises(ConfigError, match=said):
        require_allowed("model", Llama(**{**TINY, **fields}))
