import numpy as np
import pytest

from transformer.ops.time_warping import first_vectors, median_filtered, token_vectors


def cheapest(costs):
    """All ways through a small table, one after another."""

    def ways(token, vector):
        if token < 0 or vector < 0:
            return
        if token == vector == 0:
            yield costs[0, 0], [(0, 0)]
            return
        for before in ((token - 1, vector - 1), (token - 1, vector), (token, vector - 1)):
            for cost, cells in ways(*before):
                yield cost + costs[token, vector], [*cells, (token, vector)]

    _, cells = min(ways(costs.shape[0] - 1, costs.shape[1] - 1))
    return [min(v for t, v in cells if t == token) for token in range(costs.shape[0])]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (3, 5), (5, 4)])
def test_the_cheapest_way(shape):
    for seed in range(5):
        costs = np.random.default_rng(seed).normal(size=shape)
        np.testing.assert_array_equal(first_vectors(costs), cheapest(costs))


def test_a_median_is_mirrored_at_the_ends():
    x = np.array([[5.0, 1.0, 4.0, 2.0]])
    np.testing.assert_array_equal(median_filtered(x, 3), [[1.0, 4.0, 2.0, 4.0]])
    np.testing.assert_array_equal(median_filtered(x, 1), x)
    np.testing.assert_array_equal(median_filtered(x, 9), x)


def test_tokens_begin_where_their_weights_do():
    weights = np.full((2, 3, 30), 0.01, np.float32)
    for token, begin in enumerate((0, 8, 19)):
        weights[:, token, begin : begin + 9] = 0.1
    np.testing.assert_array_equal(token_vectors(weights, 3), [0, 8, 19])
    np.testing.assert_array_equal(token_vectors(weights[:, :1], 3), [0])


def test_each_vector_is_scaled_alone():
    # All but the second say little, and what it says is only loud: four of six are for this way.
    weights = [[[2, 1000, 2, 2, 1, 1], [1, 1100, 1, 1, 2, 2]]]
    np.testing.assert_array_equal(token_vectors(np.array(weights, np.float32), 1), [0, 4])


def test_they_are_those_of_transformers():
    pytest.importorskip("torch", reason="transformers computes with it")
    theirs = pytest.importorskip("transformers.models.whisper.generation_whisper")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        # Whole numbers, so that there are ties.
        costs = rng.integers(-3, 4, rng.integers(1, 12, 2)).astype(float)
        texts, times = theirs._dynamic_time_warping(costs)
        begins = times[np.diff(texts, prepend=-1) > 0]
        np.testing.assert_array_equal(first_vectors(costs), begins)
