"""Beam search for encoder-decoders, with caches, one compiled program for each shape.

The hypotheses of a sentence share one row of the cache: each step adds one slot for each of them,
and the mask lets a hypothesis see only the slots that it descends from. So the cache is never
copied when beams are reordered, and the keys and values of the source are kept once, not once per
beam.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer.ops.masks import at_positions, explicit, full, padding_behind
from transformer.ops.search_rules import USUAL, Search, length_penalty, ruled


class Hypotheses(NamedTuple):
    """The best outputs of each row, best first.

    Attributes:
        tokens: `[B, R, L]`, the end token last, if there is one, followed by zeros.
        lengths: `[B, R]`, the end token included; 0 if there are fewer than R outputs, or if the
            search had not ended after L tokens.
        log_probs: `[B, R]`, of each output as a whole, the end token included, in nats.
        scores: `[B, R]`, the log probabilities after the length penalty.
    """

    tokens: Any
    lengths: Any
    log_probs: Any
    scores: Any


class _Search(NamedTuple):
    """The state of a search before step `step`: K live beams, and the R best that have ended."""

    step: Any
    cache: Any
    tokens: Any  # [B, K], the last token of each beam.
    texts: Any  # [B, K, L], all tokens of each beam.
    slots: Any  # [B, K, L], which of the K slots of each step a beam descends from.
    log_probs: Any  # [B, K], -inf for a beam that does not exist.
    ended: Hypotheses
    done: Any  # [B]


class _Rules(NamedTuple):
    """The settings of a search, static at compilation."""

    search: Search
    alpha: float
    beam_size: int
    ends: tuple[int, ...]

    @property
    def foreign(self) -> bool:
        """Whether the search follows the library `transformers`."""
        return self.search.kind == "transformers"

    def penalty(self, length: Array) -> Array:
        """The number that log probabilities are divided by."""
        return length_penalty(length.astype(jnp.float32), self.alpha, self.search.kind)


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=(
        "end",
        "num_tokens",
        "max_length",
        "beam_size",
        "alpha",
        "num_return",
        "begin",
        "unwritten",
        "search",
    ),
)
def beam_search(
    model: Any,
    params: Any,
    source: Int[Array, "B S"],
    source_lengths: Int[Array, "B"],
    limits: Int[Array, "B"],
    *,
    end: int,
    num_tokens: int,
    max_length: int,
    beam_size: int,
    alpha: float,
    num_return: int,
    begin: int | None = None,
    unwritten: tuple[int, ...] = (),
    search: Search = USUAL,
) -> Hypotheses:
    """The most probable outputs of each row.

    Each step extends every beam by every token and takes the `beam_size` best extensions. Those
    with an end token leave the search and the best others take their places. A row is done when no
    beam can still become one of its R best outputs, or by the rule of `search`; with one beam,
    which is greedy decoding, at the first end token. The outputs of a row do not depend on the
    other rows.

    Args:
        model: an encoder-decoder with `encode`, `decode`, `logits` and `empty_cache`.
        params: its parameters.
        source: token ids.
        source_lengths: the tokens of each row before its padding. A row of length 0 is done at
            once.
        limits: the longest output of each row, the end token included.
        end: the end token.
        num_tokens: outputs contain only the first `num_tokens` entries of the vocabulary.
        max_length: L. Rows with a greater limit that are not done after L tokens have no output.
        beam_size: K.
        alpha: the exponent of the length penalty.
        num_return: R, at most K.
        begin: the token that begins every output; None takes the end token.
        unwritten: tokens that are never chosen.
        search: further rules.
    """
    begin = end if begin is None else begin
    batch = source.shape[0]
    valid = jnp.arange(source.shape[1]) < source_lengths[:, None]
    rules = _Rules(search, alpha, beam_size, (end, *search.more_ends))
    is_end = jnp.isin(jnp.arange(num_tokens), jnp.array(rules.ends))
    of_slots = jnp.arange(max_length * beam_size) // beam_size
    # `transformers` compares with the worst of as many outputs as there are beams.
    num_kept = beam_size if rules.foreign else num_return

    def score_next(module: Any, search: _Search) -> tuple[Float[Array, "B K V"], Any]:
        """Log probabilities of every beam's next token."""
        # Slot k of this step belongs to beam k.
        seen = search.slots[..., None] == jnp.arange(beam_size)
        seen &= (jnp.arange(max_length) <= search.step)[:, None]
        seen = seen.reshape(batch, 1, beam_size, max_length * beam_size)
        positions = jnp.full((batch, beam_size), search.step)
        features, cache = module.decode(
            search.tokens,
            None,
            mask=explicit(seen) & at_positions(positions, of_slots[None]),
            memory_mask=padding_behind(source_lengths),
            positions=positions,
            slots=jnp.broadcast_to(
                search.step * beam_size + jnp.arange(beam_size), (batch, beam_size)
            ),
            cache=search.cache,
        )
        log_probs = _log_probs(module.logits(features), search, begin, limits, rules)
        return log_probs.at[..., unwritten].set(-jnp.inf)[..., :num_tokens], cache

    def advance(search: _Search) -> _Search:
        own = jnp.broadcast_to(jnp.arange(beam_size), (batch, beam_size))
        search = search._replace(slots=search.slots.at[:, :, search.step].set(own))
        log_probs, cache = nn.apply(score_next, model)({"params": params}, search)
        at_limit = search.step + 1 >= limits
        if not rules.foreign:
            # At its limit a row can only end.
            log_probs = jnp.where(at_limit[:, None, None] & ~is_end, -jnp.inf, log_probs)
        log_probs += search.log_probs[..., None]

        # Enough candidates that `beam_size` of them do not end.
        count = min((1 + len(rules.ends)) * beam_size, beam_size * num_tokens)
        candidates, flat = jax.lax.top_k(log_probs.reshape(batch, -1), count)
        parents, tokens = flat // num_tokens, flat % num_tokens
        texts = jnp.take_along_axis(search.texts, parents[..., None], axis=1)
        texts = texts.at[:, :, search.step].set(tokens)
        ends = is_end[tokens] | (at_limit[:, None] & rules.foreign)

        ending = ends & (jnp.arange(count) < beam_size) & jnp.isfinite(candidates)
        ending &= ~search.done[:, None]
        length = search.step + 1
        new = Hypotheses(
            tokens=texts,
            lengths=jnp.full((batch, count), length),
            log_probs=candidates,
            scores=jnp.where(ending, candidates / rules.penalty(length), -jnp.inf),
        )
        both = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), search.ended, new)
        ended = jax.tree.map(
            functools.partial(_take, rows=jax.lax.top_k(both.scores, num_kept)[1]), both
        )

        log_probs, going_on = jax.lax.top_k(jnp.where(ends, -jnp.inf, candidates), beam_size)
        parents = jnp.take_along_axis(parents, going_on, axis=1)
        done = _is_done(ended, log_probs[:, 0], length, limits, rules)
        if beam_size == 1:
            done = jnp.any(ending, axis=1) | (done & (not rules.foreign))
        return _Search(
            step=length,
            cache=cache,
            tokens=jnp.take_along_axis(tokens, going_on, axis=1),
            texts=_take(texts, going_on),
            slots=_take(search.slots, parents),
            log_probs=log_probs,
            ended=ended,
            # At the limit the search ends even if the model's scores are NaN.
            done=search.done | done | (length >= limits),
        )

    def know_source(module: Any) -> Any:
        """A cache that holds the source; its entries for the text are overwritten later."""
        segments = valid.astype(jnp.int32)
        cache = module.empty_cache(batch, max_length * beam_size)
        _, cache = module.decode(
            jnp.full((batch, 1), begin),
            module.encode(source, segments),
            mask=full(),
            memory_mask=padding_behind(source_lengths),
            cache=cache,
        )
        return cache

    first = _Search(
        step=jnp.asarray(0),
        cache=nn.apply(know_source, model)({"params": params}),
        tokens=jnp.full((batch, beam_size), begin),
        texts=jnp.zeros((batch, beam_size, max_length), jnp.int32),
        slots=jnp.zeros((batch, beam_size, max_length), jnp.int32),
        # All beams are the same at first: one of them exists.
        log_probs=jnp.full((batch, beam_size), -jnp.inf).at[:, 0].set(0.0),
        ended=Hypotheses(
            tokens=jnp.zeros((batch, num_kept, max_length), jnp.int32),
            lengths=jnp.zeros((batch, num_kept), jnp.int32),
            log_probs=jnp.full((batch, num_kept), -jnp.inf),
            scores=jnp.full((batch, num_kept), -jnp.inf),
        ),
        done=source_lengths == 0,
    )
    last = jax.lax.while_loop(
        lambda search: ~jnp.all(search.done) & (search.step < max_length), advance, first
    )
    found = jax.tree.map(lambda x: x[:, :num_return], last.ended)
    exist = jnp.isfinite(found.scores) & last.done[:, None]
    return found._replace(lengths=jnp.where(exist, found.lengths, 0))


def _log_probs(
    logits: Float[Array, "B K V"],
    search: _Search,
    begin: int,
    limits: Int[Array, "B"],
    rules: _Rules,
) -> Float[Array, "B K V"]:
    """Log probabilities of next tokens after the rules."""
    # `transformers` applies the rules to logits when it decodes greedily.
    late = rules.foreign and rules.beam_size == 1
    scores = logits if late else jax.nn.log_softmax(logits)
    begun = jnp.full((*search.texts.shape[:2], 1), begin)
    written = jnp.concatenate([begun, search.texts], axis=2)
    at_limit = search.step + 1 >= limits
    scores = ruled(scores, written, search.step, at_limit, rules.search, rules.ends)
    return jax.nn.log_softmax(scores) if late else scores


def _is_done(
    ended: Hypotheses, best: Array, length: Array, limits: Array, rules: _Rules
) -> Bool[Array, "B"]:
    """Whether no better output is possible, given the log probability of each row's best beam."""
    # Log probabilities only fall, and the longest output is penalised least.
    longest = limits
    if rules.foreign and not (rules.search.early_stopping == "never" and rules.alpha > 0):
        longest = length
    done = ended.scores[:, -1] >= best / rules.penalty(longest)
    if rules.foreign and rules.search.early_stopping == "true":
        done |= jnp.isfinite(ended.scores[:, -1])
    return done


def _take(values: Array, rows: Int[Array, "B K"]) -> Array:
    """Rows of axis 1 of each example."""
    rows = rows.reshape(*rows.shape, *(1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, rows, axis=1)
