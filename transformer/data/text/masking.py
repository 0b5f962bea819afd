"""Masked language modeling (Devlin et al. 2018, BERT, section 3.1 and appendix A.1).

Some tokens of a text are hidden and predicted from all others. A tenth of the tokens to predict is
kept and another tenth is replaced by random tokens, so that the states of tokens are useful even if
nothing is masked.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transformer.errors import ConfigError
from transformer.ops.losses import IGNORED


@dataclasses.dataclass(frozen=True)
class Masking:
    """How many tokens are predicted, and what replaces them.

    Attributes:
        rate: fraction of the tokens that are predicted.
        mask_fraction: fraction of those that become the mask token.
        random_fraction: fraction of those that become random tokens; the others stay.
        whole_words: predicts all pieces of a word or none, as later releases of BERT do.
    """

    rate: float = 0.15
    mask_fraction: float = 0.8
    random_fraction: float = 0.1
    whole_words: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0:
            raise ConfigError(f"config.task.masking_rate is {self.rate}: above 0, at most 1.")
        fractions = (self.mask_fraction, self.random_fraction)
        if not (min(fractions) >= 0.0 and sum(fractions) <= 1.0 + 1e-9):
            raise ConfigError(
                f"config.task.mask_fraction is {self.mask_fraction} and "
                f"config.task.random_fraction {self.random_fraction}: fractions of 0 or more, "
                f"together at most 1."
            )


class Masked(NamedTuple):
    """Rows of tokens, some of which are to be predicted.

    Attributes:
        tokens: `[B, T]` int32, what the model reads.
        positions: `[B, M]` int32, places of the predictions in increasing order; 0 beyond them.
        labels: `[B, M]` int32, the original tokens there; `IGNORED` beyond them.
    """

    tokens: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def num_predictions(length: int, rate: float) -> int:
    """The most predictions that a row of `length` tokens gets, M."""
    return max(1, round(rate * length))


def mask_tokens(
    tokens: np.ndarray,
    maskable: np.ndarray,
    masking: Masking,
    *,
    mask: int,
    random_ids: np.ndarray,
    continues: np.ndarray | None = None,
    generator: np.random.Generator | Sequence[np.random.Generator],
) -> Masked:
    """Chooses tokens to predict, uniformly, and hides them.

    A row with n maskable tokens gets round(rate * n) predictions (to even from one half), at least
    one if n is not 0. Whole words are taken in random order and skipped if they exceed the
    remaining number, so there may be fewer; if no word of a row fits, single pieces are predicted.

    Args:
        tokens: `[B, T]` ids.
        maskable: `[B, T]` bool, where a prediction may be: no padding, no special token.
        masking: how many tokens are predicted, and what replaces them.
        mask: id of the mask token.
        random_ids: the ids that random tokens are drawn from.
        continues: `[V]` bool, ids that continue the word of the token before; for whole words.
        generator: the generator of all draws; or one for each row, so that rows are independent.
    """
    length = tokens.shape[1]
    slots = num_predictions(length, masking.rate)
    draws = _uniform(generator, len(tokens), length + 2 * slots)
    order, kind, which = np.split(draws, [length, length + slots], axis=1)

    maskable_counts = maskable.sum(axis=1)
    counts = np.rint(masking.rate * maskable_counts).astype(np.int64)
    counts = np.minimum(np.maximum(counts, 1), maskable_counts)
    chosen = _smallest(np.where(maskable, order, np.inf), counts)
    if masking.whole_words:
        if continues is None:
            raise ValueError("whole words need `continues`, the pieces that go on with a word.")
        words = _whole_words(continues[tokens], maskable, order, counts)
        chosen = np.where(words.any(axis=1, keepdims=True), words, chosen)

    rows, places = np.nonzero(chosen)
    per_row = chosen.sum(axis=1)
    used = np.arange(slots) < per_row[:, None]
    positions = np.zeros((len(tokens), slots), np.int32)
    labels = np.full((len(tokens), slots), IGNORED, np.int32)
    positions[used] = places
    labels[used] = tokens[rows, places]

    kind, which = kind[used], which[used]
    random = random_ids[(which * len(random_ids)).astype(np.int64)]
    is_random = kind < masking.mask_fraction + masking.random_fraction
    shown = np.where(is_random, random, labels[used])
    shown = np.where(kind < masking.mask_fraction, mask, shown)
    hidden = tokens.astype(np.int32)
    hidden[rows, places] = shown
    return Masked(hidden, positions, labels)


def unigram_entropy(ids: np.ndarray, vocab_size: int) -> float:
    """The entropy in nats of how often each id occurs, over what is not `IGNORED`; 0 for none.

    This is the loss of a model that knows only the frequencies of masked tokens.
    """
    counts = np.bincount(ids[ids != IGNORED].ravel(), minlength=vocab_size)
    fractions = counts[counts > 0] / max(1, counts.sum())
    return float(np.sum(fractions * np.log(1.0 / fractions)))


def _uniform(
    generator: np.random.Generator | Sequence[np.random.Generator], rows: int, columns: int
) -> np.ndarray:
    """Numbers in [0, 1), `[rows, columns]`."""
    if isinstance(generator, np.random.Generator):
        return generator.random((rows, columns))
    numbers = np.empty((rows, columns))
    for row, random in zip(numbers, generator, strict=True):
        random.random(out=row)
    return numbers


def _smallest(keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Where the `counts` smallest keys of each row are, `[B, T]` bool."""
    found = np.zeros(keys.shape, bool)
    ranks = np.arange(keys.shape[1])
    np.put_along_axis(found, np.argsort(keys, axis=1), ranks < counts[:, None], axis=1)
    return found


def _whole_words(
    goes_on: np.ndarray, maskable: np.ndarray, order: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Whole words of at most `counts` tokens a row, in random order while they fit.

    Args:
        goes_on: `[B, T]` bool, tokens that belong to the word of the token before.
        maskable: `[B, T]` bool.
        order: `[B, T]`, the words are taken in the order of the numbers at their first tokens.
        counts: `[B]`.

    Returns:
        `[B, T]` bool, the tokens of the words taken.
    """
    before = np.pad(maskable, ((0, 0), (1, 0)))[:, :-1]
    first = maskable & ~(goes_on & before)
    # The number of each token's word in its row; what may not be masked counts to no word.
    word = np.cumsum(first, axis=1) - 1
    sizes = np.zeros(word.shape, np.int64)
    np.add.at(sizes, (np.nonzero(maskable)[0], word[maskable]), 1)
    keys = np.full(word.shape, np.inf)
    keys[np.nonzero(first)[0], word[first]] = order[first]

    ranked = np.argsort(keys, axis=1)
    ranked_sizes = np.take_along_axis(sizes, ranked, axis=1)
    taken = np.zeros(word.shape, bool)
    left = counts.copy()
    # One word of every row at a time: whether it fits depends on those before.
    for rank in range(int(first.sum(axis=1).max(initial=0))):
        size = ranked_sizes[:, rank]
        fits = (size > 0) & (size <= left)
        left -= np.where(fits, size, 0)
        taken[:, rank] = fits
        if not left.any():
            break
    chosen = np.zeros(word.shape, bool)
    np.put_along_axis(chosen, ranked, taken, axis=1)
    return np.take_along_axis(chosen, np.maximum(word, 0), axis=1) & maskable
