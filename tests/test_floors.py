"""What the benchmarks say that a program needs at least, against counts by hand."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.composition import with_fields
from transformer.tasks.language_modeling import LanguageModeling

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# B rows of T tokens.
B, T = 3, 16


@pytest.fixture
def floors(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import floors

    return floors


def test_a_training_step(floors, gpt, gpt_params):
    width, layers, vocab = gpt.width, gpt.num_layers, gpt.vocab_size
    task = with_fields(LanguageModeling(), context=T, batch_size=B)
    batch = {name: jnp.zeros((B, T), jnp.int32) for name in ("tokens", "labels")}
    hidden = floors.hidden_flops(B, T, width, layers)
    found = floors.training_needs(task, gpt, gpt_params, batch, hidden)
    kernels = layers * (4 * width**2 + 2 * width * gpt.feed_forward_width) + width * vocab
    # A token sees itself and those before; scores, and sums of values.
    pairs = B * T * (T + 1) // 2
    forward = 2 * B * T * kernels + 4 * pairs * width * layers
    assert found == floors.Needs(3 * forward)


def test_a_token(floors, gpt, gpt_params):
    import generation
    from sizes import Size

    size = Size(gpt.num_layers, gpt.num_heads, gpt.width, context=16, batch_size=1)
    found = generation.writing_needs(size, gpt, gpt_params, B)
    cached = B * 8 * gpt.width * gpt.num_layers
    kernels = gpt.num_layers * 4 * gpt.width**2 + gpt.width * gpt.vocab_size
    kernels += gpt.num_layers * 2 * gpt.width * gpt.feed_forward_width
    # Of the token itself, which is a pair as well.
    own = 4 * B * gpt.width * gpt.num_layers
    assert found.flops == 2 * B * kernels + own + 4 * cached
    every = sum(np.size(x) for x in jax.tree.leaves(gpt_params))
    assert found.read == 4 * (every - 16 * gpt.width + 2 * cached)


def test_the_longer_time_decides(floors, monkeypatch, capsys):
    monkeypatch.setattr("peaks.reading_speed", lambda size: 1e9)
    results = {
        "products": {"seconds": 4.0, "needs": {"flops": 2e9, "read": 1e9}},
        "bytes": {"seconds": 4.0, "needs": {"flops": 2e9, "read": 1e9, "passes": 3}},
        "unknown": {"seconds": 4.0},
    }
    floors.print_floors(results, 1e9)
    assert [result.get("floor") for result in results.values()] == [2.0, 3.0, None]
    said = capsys.readouterr().out
    assert (
        "products: 2 GFLOP and 1e+03 MB to read 1 times, at least 2e+03 ms; it takes 2.00 times"
        in said
    )
    assert (
        "bytes: 2 GFLOP and 1e+03 MB to read 3 times, at least 3e+03 ms; it takes 1.33 times"
        in said
    )
