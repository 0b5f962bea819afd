import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_equal
from transformer.errors import WorkdirError
from transformer.training.initialization import Initialization, initialized
from transformer.training.layers import laid_out, stacked, unstacked


def layer(number):
    kernel = np.full((2, 3), number, np.float32)
    return {"attention": {"kernel": kernel}, "scale": np.full(4, number, np.float32)}


# As many layers as make "layer_10" come before "layer_2" in the alphabet.
UNROLLED = {
    "token_embedding": {"embedding": np.ones((5, 2), np.float32)},
    "encoder": {f"layer_{number}": layer(number) for number in range(11)},
    "decoder": {"norm": {"scale": np.ones(3, np.float32)}, "layer_0": layer(7)},
}


def test_layers_are_stacked_in_their_order():
    found = stacked(UNROLLED)
    assert set(found["encoder"]) == {"layers"}
    assert found["encoder"]["layers"]["attention"]["kernel"].shape == (11, 2, 3)
    np.testing.assert_array_equal(
        found["encoder"]["layers"]["scale"][:, 0], np.arange(11, dtype=float)
    )
    assert found["decoder"]["layers"]["scale"].shape == (1, 4)
    assert_trees_equal(found["token_embedding"], UNROLLED["token_embedding"])


def test_there_and_back_is_nothing_changed():
    assert_trees_equal(unstacked(stacked(UNROLLED)), UNROLLED)
    assert_trees_equal(stacked(stacked(UNROLLED)), stacked(UNROLLED))
    assert_trees_equal(unstacked(UNROLLED), UNROLLED)


@pytest.mark.parametrize("scanned", [False, True])
def test_a_run_begins_from_one_of_the_other_layout(scanned):
    saved = laid_out(UNROLLED, scanned=not scanned)
    new = jax.tree.map(jnp.zeros_like, laid_out(UNROLLED, scanned=scanned))
    params, report = initialized(new, saved, Initialization(workdir="runs/a", fresh=""))
    expected = laid_out(UNROLLED, scanned=scanned)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert "not used    0" in report
    saved["encoder"] = {"layer_0": layer(0)}
    with pytest.raises(WorkdirError, match="encoder/layer"):
        initialized(new, saved, Initialization(workdir="runs/a", fresh=""))
