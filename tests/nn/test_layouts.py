import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_equal
from transformer.errors import WorkdirError
from transformer.nn.layouts import laid_out_like, stacked, unstacked
from transformer.training.initialization import Initialization, initialized


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
    saved, expected = stacked(UNROLLED), unstacked(UNROLLED)
    if scanned:
        saved, expected = expected, saved
    new = jax.tree.map(jnp.zeros_like, expected)
    params, report = initialized(new, saved, Initialization(workdir="runs/a", fresh=""))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert "not used    0" in report
    saved["encoder"] = {"layer_0": layer(0)}
    with pytest.raises(WorkdirError, match="encoder/layer"):
        initialized(new, saved, Initialization(workdir="runs/a", fresh=""))


# One block by itself, five that take turns in twos, so that the last round is not whole.
TURNS = {"encoder": {f"layer_{n}": layer(n) | ({"gate": np.ones(n % 2 + 1)}) for n in range(6)}}


def test_layers_by_turns_are_stacked_by_turns():
    found = stacked(TURNS, first=1, turns=2)["encoder"]
    assert set(found) == {"layer_0", "layers", "layer_5"}
    for turn, layers in enumerate(([1, 3], [2, 4])):
        np.testing.assert_array_equal(found["layers"][f"turn_{turn}"]["scale"][:, 0], layers)
    assert_trees_equal(unstacked({"encoder": found}), TURNS)
    for other in (TURNS, {"encoder": found}):
        for params in (TURNS, {"encoder": found}):
            assert_trees_equal(laid_out_like(params, other), other)
