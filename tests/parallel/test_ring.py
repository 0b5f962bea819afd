"""Keys that go round a ring of devices give what all keys at once give."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from tests.parallel import rings
from tests.parallel.rings import CASES, HEADS, KV_HEADS, LENGTH, ROWS, SIZE
from tests.simulated import simulated_devices
from transformer.errors import ConfigError
from transformer.models.gpt import GPT
from transformer.nn.compute import Compute, for_any_shape
from transformer.ops import ring
from transformer.ops.attention import dot_product_attention, refusal
from transformer.ops.masks import Mask, causal, explicit, sliding_window

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def found():
    if jax.device_count() == 8:
        # Here, where the campaign of mutants has changed the ring.
        return rings.everything()
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.rings"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=simulated_devices(8),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_a_ring_is_the_reference(found, case):
    """Output and gradients of queries, keys and values; the largest difference seen was 1e-6."""
    differences = found["differences"][case]
    assert len(differences) == 4
    assert all(difference < 1e-5 for difference in differences)


def test_keys_are_never_gathered_and_go_only_as_far_as_the_window(found):
    assert "all-gather" not in found["window"]
    # A window of 7 reaches one device further: keys and values go there forward and backward (the
    # compiler may send them once), their gradients there and back.
    part = ROWS * LENGTH // CASES["a window"][0] * KV_HEADS * SIZE * 4
    assert found["window"]["collective-permute"]["bytes"] in (6 * part, 8 * part)


def test_the_gradient_of_the_output_layer_is_added_once_between_devices(found):
    """Not once for each of four chunks of positions."""
    assert found["loss"]["all-reduce"] == 1


def test_a_ring_of_one_device_is_the_reference():
    arrays = [normal(RNG, 2, 12, heads, 4) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    one, other = (
        dot_product_attention(*arrays, mask=causal(), implementation=name)
        for name in ("ring", "einsum")
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


PLACES = jnp.zeros((1, 10), int)
BEHIND = causal() & sliding_window(7)


@pytest.mark.parametrize(
    ("mask", "num_queries", "rounds"),
    [
        (causal() & sliding_window(1), 10, 1),
        (causal() & sliding_window(2), 10, 2),
        (causal() & sliding_window(11), 10, 2),
        (causal() & sliding_window(12), 10, 3),
        (causal() & sliding_window(99), 10, 4),
        (causal(), 10, 4),
        (sliding_window(2), 10, 4),
        (BEHIND & Mask(query_positions=PLACES), 10, 4),
        (BEHIND & Mask(key_positions=PLACES), 10, 4),
        (BEHIND, 20, 4),
    ],
)
def test_how_many_devices_a_window_reaches(mask, num_queries, rounds):
    """Of a ring of four, each with 10 keys."""
    assert ring._rounds(mask, 4, num_queries, 10) == rounds


def test_a_ring_in_half_precision_stays_in_it():
    """Of one device; only dtypes are computed."""

    def attend(query, key, value):
        return rings.by_ring(query, key, value, causal())

    def gradients(arrays, of_output):
        output, back = jax.vjp(attend, *arrays)
        return output, *back(of_output)

    shape = jax.ShapeDtypeStruct((1, 12, 2, 4), jnp.bfloat16)
    with jax.set_mesh(rings.line(1)):
        found = jax.eval_shape(gradients, (shape,) * 3, shape)
        found += (jax.eval_shape(attend, *(shape,) * 3),)
    assert [x.dtype for x in found] == [jnp.bfloat16] * 5


def test_what_a_ring_cannot_do_is_refused():
    arrays = [normal(RNG, 1, 4, 1, 4)] * 3
    with pytest.raises(ValueError, match="neither bias"):
        dot_product_attention(*arrays, bias=jnp.zeros((1, 1, 4, 4)), implementation="ring")
    dropping = {"dropout_rate": 0.5, "dropout_key": jax.random.key(0)}
    with pytest.raises(ValueError, match="nor dropout"):
        dot_product_attention(*arrays, **dropping, implementation="ring")
    everywhere = explicit(jnp.ones((1, 1, 4, 4), bool))
    with pytest.raises(ValueError, match="entry for each pair"):
        dot_product_attention(*arrays, mask=everywhere, implementation="ring")
    assert refusal("ring", arrays[0], 4, causal()) is None


def test_lengths_that_do_not_divide_are_refused(monkeypatch):
    monkeypatch.setattr("transformer.nn.attention.parts", lambda name: {"sequence": 4}[name])
    compute = Compute(attention="ring")
    compute.chosen_attention(2, 8, 12)
    with pytest.raises(ConfigError, match=r"18 queries and 18 keys.*mesh.sequence = 4"):
        compute.chosen_attention(2, 8, 18)


def test_after_training_any_length_is_computed():
    assert for_any_shape(GPT(compute=Compute(attention="ring"))).compute.attention == "auto"
