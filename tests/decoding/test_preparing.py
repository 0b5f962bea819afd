"""What is made of a model before it writes changes nothing that it writes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_equal, noisy_parameters
from transformer.decoding import preparing, sample
from transformer.models.mixtral import Mixtral
from transformer.nn.compute import Compute, computing
from transformer.ops.logits import Sampling
from transformer.training.selection import by_path

SIZES = {"vocab_size": 11, "num_layers": 2, "num_heads": 2, "width": 16, "context": 8}
SIZES |= {"num_kv_heads": 1, "feed_forward_width": 16, "num_experts": 2}
MODEL = Mixtral(**SIZES, compute=Compute(dtype="bfloat16", scan_layers=True))
TOKENS = jnp.asarray([[1, 2, 3, 4, 5]])


@pytest.fixture(scope="module")
def params():
    return noisy_parameters(MODEL, TOKENS)


def test_matrices_have_the_dtype_of_their_computation(params):
    found = preparing.in_computed_dtypes(MODEL, params)
    for path, value in by_path(found).items():
        # A router computes in float32, and vectors are small.
        wide = "router" in path or not path.endswith(("kernel", "embedding"))
        assert value.dtype == ("float32" if wide else "bfloat16"), path
    apply = jax.jit(lambda params: MODEL.apply({"params": params}, TOKENS)[0])
    np.testing.assert_array_equal(apply(found), apply(params))
    wide = computing(MODEL, dtype="float32")
    assert preparing.in_computed_dtypes(wide, params) is params


def test_a_loop_over_layers_is_for_cpus(params, monkeypatch):
    assert preparing.unrolled(MODEL, params) == (MODEL, params)
    monkeypatch.setattr(preparing, "platform", lambda: "gpu")
    model, found = preparing.unrolled(MODEL, params)
    assert model == computing(MODEL, scan_layers=False)
    np.testing.assert_array_equal(
        found["blocks"]["layer_1"]["attention"]["query"]["kernel"],
        params["blocks"]["layers"]["attention"]["query"]["kernel"][1],
    )
    monkeypatch.setattr(preparing, "_MOST_UNROLLED", 1)
    assert preparing.unrolled(MODEL, params) == (MODEL, params)


def test_writing_takes_what_is_prepared(params, monkeypatch):
    taken = []

    class Writer(sample.OneByOne):
        def read(self, *args):
            taken.append(self)
            raise StopIteration

    monkeypatch.setattr(sample, "OneByOne", Writer)
    text = sample.generate(
        MODEL, params, [np.array([1])], max_new_tokens=1, sampling=Sampling(0.0), seed=0
    )
    with pytest.raises(RuntimeError):
        next(text)
    assert_trees_equal(taken[0].params, preparing.in_computed_dtypes(MODEL, params))
