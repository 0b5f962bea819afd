"""Rules of a search for outputs: scores, when the search ends, and which tokens are forbidden."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer.checks import whole_number
from transformer.errors import ConfigError
from transformer.limits import MOST, CountOrZero, OneOf, Positive, Real, Text, TokenIds

KINDS = ("wu", "transformers")
# With this exponent, penalties of even the longest texts are finite float32 numbers.
MOST_PENALTY = 8.0
Penalty = Annotated[float, Real(-MOST_PENALTY, MOST_PENALTY)]
EARLY_STOPPING = ("false", "true", "never")


@dataclasses.dataclass(frozen=True)
class Search:
    """The rules of a search; its fields are `config.task.search`.

    Attributes:
        kind: which rules to follow. `wu` divides log probabilities by the penalty of Wu et al. 2016
            (equation 14), ends the search when no better output is possible, forces an output at
            its limit to end, and writes only tokens of the tokenizer. `transformers` follows that
            library: it divides by length ** length_penalty, `early_stopping` says when to end, and
            an output at its limit is complete as it is.
        early_stopping: for `transformers`, when to stop after as many outputs have ended as there
            are beams: `true` stops at once; `false` if the best beam would score less if it ended
            now; `never` only if it would score less at any length.
        max_new_tokens: the longest output, its end included; 0 takes the task's lengths.
        min_new_tokens: the shortest output, its end not counted.
        no_repeat_ngram_size: no sequence of this many tokens occurs twice in an output; 0 allows
            repetition.
        repetition_penalty: divides the scores of tokens that an output already contains, or
            multiplies them if they are negative (Keskar et al. 2019, section 4.1).
        unwritten: sequences of tokens that no output contains: token ids separated by `,`,
            sequences by `;`, such as `58100;4,7`.
        unwritten_first: tokens that no output begins with.
        forced_first: every output begins with one of these tokens, at no cost.
        forced_last: an output at its limit ends with one of these tokens, at no cost.
        more_ends: tokens that end an output as the tokenizer's end does.
    """

    kind: Annotated[str, OneOf(KINDS)] = "wu"
    early_stopping: Annotated[str, OneOf(EARLY_STOPPING)] = "never"
    max_new_tokens: CountOrZero = 0
    min_new_tokens: CountOrZero = 0
    no_repeat_ngram_size: CountOrZero = 0
    repetition_penalty: Positive = 1.0
    unwritten: Text = ""
    unwritten_first: TokenIds = ()
    forced_first: TokenIds = ()
    forced_last: TokenIds = ()
    more_ends: TokenIds = ()

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: naming the field.
        """
        self.sequences()

    def check_penalty(self, alpha: float, name: str) -> None:
        """Refuses a length penalty that cannot work.

        Args:
            alpha: the penalty.
            name: the name of the penalty, for the message.

        Raises:
            ConfigError: if the penalty cannot work.
        """
        # With `wu`, the longest output must be penalised least.
        least = 0.0 if self.kind == "wu" else -MOST_PENALTY
        if not least <= alpha <= MOST_PENALTY:
            raise ConfigError(f"{name} is {alpha}: from {least:g} to {MOST_PENALTY:g}.")

    def limits(self) -> dict[str, int]:
        """The longest outputs, without an end that each needs; empty takes the task's lengths."""
        if not self.max_new_tokens:
            return {}
        return {"max_length": self.max_new_tokens - (self.kind == "wu")}

    def sequences(self) -> tuple[tuple[int, ...], ...]:
        """`unwritten` as token ids.

        Raises:
            ConfigError: if `unwritten` is not written as such.
        """
        parts = self.unwritten.replace(" ", "").split(";") if self.unwritten.strip() else []
        numbers = [[whole_number(number) for number in part.split(",")] for part in parts]
        if any(number is None or number > MOST for part in numbers for number in part):
            raise ConfigError(
                f"config.task.search.unwritten is {self.unwritten!r}: separate token ids by , "
                f"and sequences by ;."
            )
        return tuple(tuple(number for number in part if number is not None) for part in numbers)


USUAL = Search()


def length_penalty(length: Array, alpha: float, kind: str = "wu") -> Array:
    """The number that log probabilities are divided by.

    Args:
        length: the number of tokens of an output, the end token included.
        alpha: 0 compares log probabilities as they are; a larger number favours longer outputs.
        kind: see `Search`.
    """
    return length**alpha if kind == "transformers" else ((5.0 + length) / 6.0) ** alpha


def ruled(
    scores: Float[Array, "B K V"],
    written: Int[Array, "B K L"],
    step: Int[Array, ""],
    at_limit: Bool[Array, "B"],
    search: Search,
    ends: tuple[int, ...],
) -> Float[Array, "B K V"]:
    """Applies the rules to scores of next tokens, in the order in which `transformers` does.

    Args:
        scores: log probabilities, or unnormalised logits.
        written: each text so far, including its begin token.
        step: how many tokens of each text are written, without its begin token.
        at_limit: whether the next token is the last that its row may have.
        search: the rules to apply.
        ends: tokens that end a text.
    """
    size = scores.shape[-1]
    never = -jnp.inf
    there = jnp.broadcast_to(jnp.arange(written.shape[-1]) <= step, written.shape)
    if search.repetition_penalty != 1.0:
        penalty = search.repetition_penalty
        changed = jnp.where(scores < 0, scores * penalty, scores / penalty)
        scores = jnp.where(_marked(written, there, size), changed, scores)
    if 0 < search.no_repeat_ngram_size <= written.shape[-1]:
        repeated = _repeated(written, step, search.no_repeat_ngram_size)
        tokens = written[..., search.no_repeat_ngram_size - 1 :]
        scores = jnp.where(_marked(tokens, repeated, size), never, scores)
    for sequence in search.sequences():
        banned = scores.at[..., sequence[-1]].set(never)
        follows = _ends_with(written, step, sequence[:-1])
        scores = jnp.where(follows[..., None], banned, scores)
    if search.min_new_tokens:
        early = step < search.min_new_tokens
        scores = jnp.where(early, scores.at[..., list(ends)].set(never), scores)
    for tokens, when in (
        (search.forced_first, jnp.broadcast_to(step == 0, at_limit.shape)),
        (search.forced_last, at_limit),
    ):
        if tokens:
            forced = jnp.full_like(scores, never).at[..., list(tokens)].set(0.0)
            scores = jnp.where(when[:, None, None], forced, scores)
    if search.unwritten_first:
        begins = step == (1 if search.forced_first else 0)
        banned = scores.at[..., list(search.unwritten_first)].set(never)
        scores = jnp.where(begins, banned, scores)
    return scores


def _marked(tokens: Int[Array, "B K N"], which: Array, size: int) -> Array:
    """Whether each of `size` tokens is among those that are marked."""
    rows, beams, _ = tokens.shape
    found = jnp.zeros((rows, beams, size), bool)
    place = jnp.arange(rows)[:, None, None], jnp.arange(beams)[None, :, None], tokens
    return found.at[place].max(which, mode="drop")


def _repeated(written: Int[Array, "B K L"], step: Array, n: int) -> Array:
    """Which n-grams of a text, by start index, begin with the last n - 1 tokens of the text."""
    count = written.shape[-1] - n + 1
    whole = jnp.broadcast_to(jnp.arange(count) + n - 1 <= step, (*written.shape[:-1], count))
    for place in range(n - 1):
        # The token that is n - 1 - place from the end.
        last = jax.lax.dynamic_slice_in_dim(written, step - n + 2 + place, 1, axis=-1)
        whole &= written[..., place : place + count] == last
    return whole


def _ends_with(written: Int[Array, "B K L"], step: Array, tokens: tuple[int, ...]) -> Array:
    """Which texts end with these tokens; all texts if there are no tokens."""
    found = jnp.broadcast_to(step + 1 >= len(tokens), written.shape[:-1])
    for place, token in enumerate(reversed(tokens)):
        found &= jax.lax.dynamic_slice_in_dim(written, step - place, 1, axis=-1)[..., 0] == token
    return found
