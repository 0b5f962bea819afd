"""Pairs of token ids as rows of one sequence each, for models that continue texts."""

from collections.abc import Sequence

import numpy as np

from transformer.data.rows import Rows
from transformer.ops.losses import IGNORED


def completion_rows(
    prompts: Sequence[np.ndarray],
    suffix: np.ndarray,
    targets: Sequence[np.ndarray],
    *,
    max_length: int,
    max_target_length: int,
    training: bool,
) -> tuple[Rows, int, int]:
    """Rows of n pairs, in which only the target's tokens are to be predicted.

    Args:
        prompts: the tokens of each source; one too long loses its end.
        suffix: the tokens between source and target.
        targets: the tokens of each target, its end included.
        max_length: the width of a row, T.
        max_target_length: the most tokens of a target.
        training: whether pairs with a longer target are left out; otherwise these are cut.

    Returns:
        `tokens` [n, T] int32, `labels` [n, T] int32 (the next token where it is of the target,
        else `IGNORED`) and `lengths` [n] int32; how many sources were cut; and how many pairs
        were left out.
    """
    kept = [
        (prompt, target[:max_target_length])
        for prompt, target in zip(prompts, targets, strict=True)
        if len(target) <= max_target_length or not training
    ]
    tokens = np.zeros((len(kept), max_length), np.int32)
    labels = np.full_like(tokens, IGNORED)
    lengths = np.zeros(len(kept), np.int32)
    cut = 0
    for row, (prompt, target) in enumerate(kept):
        # The last token is only a label.
        room = max(0, max_length + 1 - len(suffix) - len(target))
        cut += len(prompt) > room
        ids = np.concatenate([prompt[:room], suffix, target])[: max_length + 1]
        size = len(ids) - 1
        tokens[row, :size], lengths[row] = ids[:-1], size
        labels[row, size - len(target) : size] = target
    return {"tokens": tokens, "labels": labels, "lengths": lengths}, cut, len(prompts) - len(kept)
