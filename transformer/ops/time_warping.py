"""When each token was said, from attention: smoothing and dynamic time warping.

Letters: A heads, U tokens of a text, R vectors of a recording. The weights of some heads of a model
like Whisper follow the sound (Radford et al. 2023, the published code; Giorgino 2009 on warping).
These run on the host, once for a window.
"""

import numpy as np
from jaxtyping import Float, Int

# What the cheapest path to a cell came from.
_BOTH, _TOKEN, _VECTOR = 0, 1, 2


def median_filtered(x: Float[np.ndarray, "*A R"], width: int) -> Float[np.ndarray, "*A R"]:
    """The median of the numbers around each, mirrored at both ends.

    What is shorter than half the width remains as it is.

    Args:
        x: any numbers.
        width: how many numbers each median is of; odd.
    """
    half = width // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    return np.sort(around, axis=-1)[..., half]


def first_vectors(costs: Float[np.ndarray, "U R"]) -> Int[np.ndarray, " U"]:
    """The vector at which each token begins on the cheapest way through a table.

    A way leads from the first token and vector to the last ones. It goes on by a token, a vector,
    or both; the costs of all its cells add up.
    """
    came_from = _ways(costs)
    token, vector = costs.shape
    begins = np.zeros(token, np.int64)
    while token > 0 and vector > 0:
        begins[token - 1] = vector - 1
        step = came_from[token, vector]
        token -= step != _VECTOR
        vector -= step != _TOKEN
    return begins


def _ways(costs: Float[np.ndarray, "U R"]) -> Int[np.ndarray, "U+1 R+1"]:
    """From where the cheapest way comes to each cell; the first row and column are outside.

    Cells on a diagonal do not depend on each other, and are computed together. Sums are rounded to
    32 bits, so that ties are those of the library `transformers`.
    """
    num_tokens, num_vectors = costs.shape
    total = np.full((num_tokens + 1, num_vectors + 1), np.inf, np.float32)
    total[0, 0] = 0.0
    came_from = np.zeros(total.shape, np.int8)
    for diagonal in range(2, num_tokens + num_vectors + 1):
        token = np.arange(max(1, diagonal - num_vectors), min(num_tokens, diagonal - 1) + 1)
        vector = diagonal - token
        both, by_token = total[token - 1, vector - 1], total[token - 1, vector]
        by_vector = total[token, vector - 1]
        is_both = (both < by_token) & (both < by_vector)
        is_token = (by_token < both) & (by_token < by_vector)
        step = np.where(is_both, _BOTH, np.where(is_token, _TOKEN, _VECTOR))
        before = np.where(is_both, both, np.where(is_token, by_token, by_vector))
        total[token, vector] = costs[token - 1, vector - 1].astype(np.float64) + before
        came_from[token, vector] = step
    return came_from


def token_vectors(weights: Float[np.ndarray, "A U R"], width: int) -> Int[np.ndarray, " U"]:
    """The vector at which each token begins, from the weights of some heads.

    The weights of each vector are scaled to mean 0 and variance 1 over the tokens, smoothed over
    the vectors, and averaged over the heads.

    Args:
        weights: of each vector for each token.
        width: of the median filter.
    """
    deviation = np.std(weights, axis=-2, keepdims=True)
    centred = weights - np.mean(weights, axis=-2, keepdims=True)
    # All weights of a single token are alike.
    scaled = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    return first_vectors(-np.mean(median_filtered(scaled, width), axis=0))
