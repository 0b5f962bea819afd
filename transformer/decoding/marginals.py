"""What a masked language model expects at each place of a sequence, with that place masked."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.data.proteins.mutations import Mutation
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.decoding.shapes import rounded_up
from transformer.errors import DataError
from transformer.nn.heads import TextEncoder
from transformer.types import Params

# Rows that are computed at once.
_ROWS = 16


def masked_marginals(
    model: TextEncoder,
    params: Params,
    tokenizer: EncoderTokenizer,
    sequence: str,
    *,
    places: Int[np.ndarray, " n"] | None = None,
    masked: bool = True,
) -> Float[np.ndarray, "n V"]:
    """The logarithms of the probabilities of all tokens at residues of a sequence.

    Args:
        model: an encoder with a head for masked tokens.
        params: its parameters.
        tokenizer: its tokenizer, in which each residue is one token.
        sequence: the residues.
        places: n residues to predict, from 0; None takes all.
        masked: masks these residues in turn (Meier et al. 2021, section 4, "masked marginals"),
            which takes n rows; otherwise the whole sequence is read once ("wild-type marginals").

    Raises:
        DataError: if a residue is not one token, or there are too many.
    """
    ids = residue_ids(tokenizer, sequence, model.context)
    chosen = np.arange(len(ids)) if places is None else places
    # Behind the token that begins a row.
    chosen = chosen.astype(np.int32) + 1
    length = rounded_up(len(ids) + 2, model.context)
    row = np.full(length, tokenizer.pad, np.int32)
    row[: len(ids) + 2] = [tokenizer.start, *ids, tokenizer.separator]
    if not masked:
        found = _filled(model, params, row[None], np.int32([len(ids) + 2]), chosen[None])
        return np.asarray(found)[0]
    scores = []
    for first in range(0, len(chosen), _ROWS):
        # The last place is repeated, so that there is one shape.
        part = chosen[np.minimum(np.arange(first, first + _ROWS), len(chosen) - 1)]
        rows = np.tile(row, (_ROWS, 1))
        rows[np.arange(_ROWS), part] = tokenizer.mask
        lengths = np.full(_ROWS, len(ids) + 2, np.int32)
        found = _filled(model, params, rows, lengths, part[:, None])
        scores.append(np.asarray(found)[: len(chosen) - first, 0])
    return np.concatenate(scores)


def residue_ids(tokenizer: EncoderTokenizer, sequence: str, context: int) -> Int[np.ndarray, " n"]:
    """The token of each residue.

    Args:
        tokenizer: the tokenizer.
        sequence: n residues.
        context: the most tokens of a row, two of which are special.

    Raises:
        DataError: if a residue is not one known token, or there are too many.
    """
    (pieces,) = tokenizer.encode_words([list(sequence)])
    if len(sequence) > context - 2:
        raise DataError(
            f"the sequence has {len(sequence):,} residues, and the model reads {context - 2:,}."
        )
    alone = np.bincount(pieces.words, minlength=len(sequence)) == 1
    alone[pieces.words[pieces.ids == tokenizer.unknown]] = False
    if not alone.all():
        place = int(np.argmin(alone))
        raise DataError(
            f"residue {place + 1} of the sequence is {sequence[place]!r}, which is no token of "
            f"this model."
        )
    return pieces.ids


class MutationScores:
    """How much rather a model expects a variant than the protein, in nats.

    Args:
        model: see `masked_marginals`.
        params: see `masked_marginals`.
        tokenizer: see `masked_marginals`.
        sequence: the protein.
        places: the residues that variants change, from 0; None takes all.
        masked: see `masked_marginals`.
    """

    def __init__(
        self,
        model: TextEncoder,
        params: Params,
        tokenizer: EncoderTokenizer,
        sequence: str,
        places: Sequence[int] | None = None,
        *,
        masked: bool = True,
    ) -> None:
        ids = residue_ids(tokenizer, sequence, model.context)
        chosen = np.arange(len(ids)) if places is None else np.array(places, np.int64)
        self._tokenizer, self._context = tokenizer, model.context
        self._rows = {int(place): row for row, place in enumerate(chosen)}
        self._scores = np.zeros((0, tokenizer.vocab_size), np.float32)
        if len(chosen):
            found = masked_marginals(
                model, params, tokenizer, sequence, places=chosen, masked=masked
            )
            self._scores = found - found[np.arange(len(chosen)), ids[chosen]][:, None]

    def of(self, mutations: Sequence[Mutation]) -> float:
        """The score of a variant: the sum over its mutations, as if they were independent."""
        tokens = self._tokens("".join(mutation.after for mutation in mutations))
        rows = [self._rows[mutation.place] for mutation in mutations]
        return float(self._scores[rows, tokens].sum())

    def table(self, residues: str) -> Float[np.ndarray, "n c"]:
        """The scores of c residues at the n places."""
        return self._scores[:, self._tokens(residues)]

    def _tokens(self, residues: str) -> Int[np.ndarray, " n"]:
        return residue_ids(self._tokenizer, residues, len(residues) + 2)


@functools.partial(jax.jit, static_argnums=0)
def _filled(
    model: TextEncoder,
    params: Params,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    places: Int[Array, "B M"],
) -> Float[Array, "B M V"]:
    logits = model.apply({"params": params}, tokens, None, lengths, places, method="fill")
    return jax.nn.log_softmax(logits)
