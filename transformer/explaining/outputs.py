"""The outputs of a model as a page shows them."""

import numpy as np
from jaxtyping import Float

from transformer.explaining.arrays import Arrays
from transformer.explaining.traces import Trace
from transformer.types import Json

# The most tokens listed at each position, and listed in all.
_MOST, _MOST_IN_ALL, _LEAST = 200, 6400, 20
# The temperatures at which the rest of a distribution is summed up, for the page's sliders.
TEMPERATURES = tuple(round(0.1 * step, 1) for step in range(1, 21))


def output_of(trace: Trace, arrays: Arrays) -> tuple[Json, set[int]]:
    """The outputs of a trace, and the token ids among them.

    Args:
        trace: the trace.
        arrays: gets the numbers.
    """
    reading, outputs = trace.reading, trace.outputs
    if reading.output == "classes":
        found = {"names": list(reading.names), "kind_of_scores": reading.scores}
        return {"kind": "classes", **found, "logits": arrays.exact(outputs)}, set()
    if reading.output == "token_classes":
        names = list(reading.names)
        return {"kind": "token_classes", "names": names, "logits": arrays.exact(outputs)}, set()
    if reading.output == "vector":
        assert reading.pooling is not None
        words = " and ".join(reading.pooling.pooling)
        return {"kind": "vector", "pooling": words, "vector": arrays.exact(outputs)}, set()
    if reading.output == "span":
        start, end = arrays.exact(outputs[:, 0]), arrays.exact(outputs[:, 1])
        return {"kind": "span", "start": start, "end": end}, set()
    ids = best_ids(outputs)
    listed = np.take_along_axis(outputs, ids, axis=-1)
    found: Json = {
        "kind": reading.output,
        "logits": arrays.exact(listed),
        "ids": arrays.exact(ids, "int32"),
        "rest": arrays.exact(rest(outputs, ids, 1.0)),
        "vocab_size": outputs.shape[-1],
    }
    if reading.output == "masked_tokens":
        found["positions"] = list(reading.positions)
    else:
        sums = [rest(outputs, ids, temperature) for temperature in TEMPERATURES]
        log_sums = arrays.exact(np.stack(sums, axis=-1))
        found["rest_at"] = {"temperatures": list(TEMPERATURES), "log_sums": log_sums}
    return found, set(np.unique(ids).tolist())


def best_ids(outputs: Float[np.ndarray, "T V"]) -> np.ndarray:
    """The best tokens of each position, `[T, k]`, the best first: fewer for many positions."""
    count = min(outputs.shape[-1], max(_LEAST, min(_MOST, _MOST_IN_ALL // len(outputs))))
    some = np.argpartition(-outputs, count - 1, axis=-1)[:, :count]
    order = np.argsort(-np.take_along_axis(outputs, some, axis=-1), axis=-1, kind="stable")
    return np.take_along_axis(some, order, axis=-1)


def rest(outputs: Float[np.ndarray, "T V"], ids: np.ndarray, temperature: float) -> np.ndarray:
    """The log of the sum of exp(logit / temperature) over the tokens that are not listed."""
    others = outputs.astype(np.float64) / temperature
    np.put_along_axis(others, ids, -np.inf, axis=-1)
    largest = others.max(-1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        return (largest[:, 0] + np.log(np.exp(others - largest).sum(-1))).astype(np.float32)
