"""What attention does, as numbers: pure functions of attention weights and token ids."""

import numpy as np
from jaxtyping import Float, Int

from transformer.explaining.traces import Trace


def attention_rollout(weights: Float[np.ndarray, "L N T T"]) -> Float[np.ndarray, "L T T"]:
    """How much of each input token has reached each token after each layer.

    Abnar and Zuidema 2020, section 3: attention is averaged over heads, the residual connection
    counts as much as attention, and layers are multiplied.

    Args:
        weights: of all layers; each row sums to 1.
    """
    found, total = [], np.eye(weights.shape[-1])
    for layer in weights.astype(np.float64):
        mixing = 0.5 * layer.mean(axis=0) + 0.5 * np.eye(weights.shape[-1])
        total = mixing / mixing.sum(-1, keepdims=True) @ total
        found.append(total)
    return np.stack(found).astype(np.float32)


def previous_token_scores(weights: Float[np.ndarray, "L N T T"]) -> Float[np.ndarray, "L N"]:
    """How much each head attends to the token before, on average over all tokens but the first.

    One token alone has none before it: the score is 0.
    """
    if weights.shape[-1] < 2:
        return np.zeros(weights.shape[:2], weights.dtype)
    return np.diagonal(weights, offset=-1, axis1=-2, axis2=-1).mean(-1)


def duplicate_token_scores(
    weights: Float[np.ndarray, "L N T T"], ids: Int[np.ndarray, " T"]
) -> Float[np.ndarray, "L N"]:
    """How much each head attends to earlier occurrences of the same token.

    Wang et al. 2022 ("Interpretability in the Wild", section 3). The mean is over the tokens that
    have occurred before; without any the score is 0.

    Args:
        weights: of all layers.
        ids: the tokens.
    """
    return _on_pairs(weights, _repeated(ids))


def induction_scores(
    weights: Float[np.ndarray, "L N T T"], ids: Int[np.ndarray, " T"]
) -> Float[np.ndarray, "L N"]:
    """How much each head attends to what followed earlier occurrences of the same token.

    Olsson et al. 2022 ("In-context Learning and Induction Heads"): in `A B ... A`, attention from
    the second A to B. The mean is over the tokens that have occurred before.

    Args:
        weights: of all layers.
        ids: the tokens.
    """
    after = np.zeros((len(ids), len(ids)), bool)
    after[:, 1:] = _repeated(ids)[:, :-1]
    # What follows the occurrence before is at the latest the token itself.
    return _on_pairs(weights, np.tril(after))


def _repeated(ids: np.ndarray) -> np.ndarray:
    """`[T, T]` booleans: whether the key is an earlier occurrence of the query's token."""
    return np.tril(ids[:, None] == ids[None, :], k=-1)


def _on_pairs(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The weight on marked keys, summed over keys; the mean over queries that have one."""
    rows = pairs.any(-1)
    if not rows.any():
        return np.zeros(weights.shape[:2])
    return (weights * pairs).sum(-1)[..., rows].mean(-1)


def norms(x: Float[np.ndarray, "*B D"]) -> Float[np.ndarray, "*B"]:
    """The Euclidean norm of each vector."""
    return np.sqrt(np.square(x.astype(np.float64)).sum(-1)).astype(np.float32)


def stream_norms(trace: Trace) -> dict[str, Float[np.ndarray, "L T"]]:
    """The norms of the stream at each point of each layer, and of what each part adds to it."""
    stack = trace.stacks[-1]
    names = [name for name in stack.layers[0] if name.startswith("residual")]
    names += [name for name in stack.layers[0] if name.endswith("_output")]
    return {name: norms(stack[name]) for name in names}
