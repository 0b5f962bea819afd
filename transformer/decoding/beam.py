"""Beam search for encoder-decoders, with caches, one compiled program for each shape.

The hypotheses of a sentence share one row of the cache: each step adds one slot for each of them,
and the mask lets a hypothesis see only the slots that it descends from. So the cache is never
copied when beams are reordered, and the keys and values of the source are kept once, not once per
beam.

In this file, B is sentences, K beams, C candidates of a step, R outputs, L the longest output.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.decoding.growing import rooms, write_growing
from transformer.decoding.prompted import Prompts
from transformer.decoding.rows import caches_row_by_row
from transformer.nn.encoder_decoder import AnyEncoderDecoder, Caches, Source, num_slots
from transformer.ops.largest import largest
from transformer.ops.masks import at_positions, explicit, padding_behind
from transformer.ops.search_rules import USUAL, Search, length_penalty, ruled
from transformer.ops.transcript_rules import TranscriptRules
from transformer.types import Params

# The fewest tokens that a cache has room for.
_LEAST_ROOM = 32


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to search; static at compilation.

    Attributes:
        end: the end token.
        num_tokens: outputs contain only the first `num_tokens` entries of the vocabulary.
        max_length: L. Rows with a greater limit that are not done after L tokens have no output.
        beam_size: K.
        alpha: the exponent of the length penalty.
        num_return: R, at most K.
        begin: the token that begins every output; None takes the end token.
        unwritten: tokens that are never chosen.
        search: further rules.
        transcript: rules of transcripts, after those of `search`.
    """

    end: int
    num_tokens: int
    max_length: int
    beam_size: int
    alpha: float
    num_return: int
    begin: int | None = None
    unwritten: tuple[int, ...] = ()
    search: Search = USUAL
    transcript: TranscriptRules | None = None

    @property
    def foreign(self) -> bool:
        """Whether the search follows the library `transformers`."""
        return self.search.kind == "transformers"

    @property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end an output."""
        return (self.end, *self.search.more_ends)

    @property
    def first(self) -> int:
        """The token that begins every output."""
        return self.end if self.begin is None else self.begin

    @property
    def num_kept(self) -> int:
        """How many ended outputs are kept."""
        # `transformers` compares with the worst of as many outputs as there are beams.
        return self.beam_size if self.foreign else self.num_return

    def penalty(self, length: Int[Array, "*B"]) -> Float[Array, "*B"]:
        """The number that log probabilities are divided by."""
        return length_penalty(length.astype(jnp.float32), self.alpha, self.search.kind)


class Hypotheses(NamedTuple):
    """The best outputs of each row, best first.

    Attributes:
        tokens: the end token last, if there is one, followed by zeros.
        lengths: with the end token; 0 if there are fewer than R outputs, or if the search had not
            ended after L tokens.
        log_probs: of each output as a whole, with the end token, in nats.
        scores: the log probabilities after the length penalty.
    """

    tokens: Int[Array | np.ndarray, "B R L"]
    lengths: Int[Array | np.ndarray, "B R"]
    log_probs: Float[Array | np.ndarray, "B R"]
    scores: Float[Array | np.ndarray, "B R"]


class _State(NamedTuple):
    """A search before step `step`: its live beams, and the best outputs that have ended."""

    step: Int[Array, ""]
    cache: Caches
    tokens: Int[Array, "B K"]  # The last token of each beam.
    texts: Int[Array, "B K L"]  # All tokens of each beam.
    slots: Int[Array, "B K L"]  # Which of the K slots of each step a beam descends from.
    log_probs: Float[Array, "B K"]  # -inf for a beam that does not exist.
    ended: Hypotheses
    done: Bool[Array, "B"]


class _Candidates(NamedTuple):
    """The best extensions of all beams by one token, best first."""

    log_probs: Float[Array, "B C"]
    parents: Int[Array, "B C"]  # The beams that they extend.
    tokens: Int[Array, "B C"]
    texts: Int[Array, "B C L"]
    ends: Bool[Array, "B C"]  # Whether they are complete outputs.


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def beam_search(
    model: AnyEncoderDecoder,
    params: Params,
    source: Source,
    source_lengths: Int[Array, "B"],
    limits: Int[Array, "B"],
    settings: Settings,
    prompts: Prompts | None = None,
) -> Hypotheses:
    """The most probable outputs of each row.

    Each step extends every beam by every token and takes the `beam_size` best extensions. Those
    with an end token leave the search and the best others take their places. A row is done when no
    beam can still become one of its R best outputs, or by the rule of `settings.search`; with one
    beam, which is greedy decoding, at the first end token. The outputs of a row do not depend on
    the other rows.

    Args:
        model: an encoder-decoder.
        params: its parameters.
        source: token ids, or whatever the model reads.
        source_lengths: the steps of each row before its padding. A row of length 0 is done at
            once.
        limits: the longest output of each row, the end token included.
        settings: how to search.
        prompts: what stands in front of each output and is no part of it; None means the token
            that begins every output.
    """
    valid = jnp.arange(source.shape[1]) < source_lengths[:, None]
    memory = model.apply({"params": params}, source, valid.astype(jnp.int32), method="encode")
    lengths = model.memory_lengths(source_lengths)
    return search_memory(model, params, memory, lengths, limits, settings, prompts)


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def search_memory(
    model: AnyEncoderDecoder,
    params: Params,
    memory: Float[Array, "B R D"],
    memory_lengths: Int[Array, "B"],
    limits: Int[Array, "B"],
    settings: Settings,
    prompts: Prompts | None = None,
) -> Hypotheses:
    """The same for sources that are encoded already; `memory_lengths` are those of the memory."""
    variables = {"params": params}
    if prompts is None:
        begins = jnp.full((len(memory), 1), settings.first)
        prompts = Prompts(begins, jnp.ones(len(memory), jnp.int32))

    def advance(state: _State) -> _State:
        state = _with_next_slot(state)
        log_probs, cache = nn.apply(_next_log_probs, model)(
            variables, state, prompts, memory_lengths, limits, settings
        )
        found = _extensions(state, log_probs, limits, settings)
        ended, has_ended = _best_ended(state, found, settings)
        return _next_state(state, cache, found, ended, has_ended, limits, settings)

    def compute(memory: Array, lengths: Array, prompts: Prompts) -> Caches:
        return nn.apply(_read, model)(variables, memory, lengths, prompts, slots(steps[0]))

    def slots(room: int) -> int:
        return prompts.tokens.shape[1] - 1 + room * settings.beam_size

    steps = rooms(settings.max_length, least=_LEAST_ROOM)
    cache = caches_row_by_row(model, compute, memory, memory_lengths, prompts)
    first = _initial_state(cache, memory_lengths, prompts, settings)
    return _outputs(write_growing(advance, first, steps, slots), settings)


def _read(
    model: AnyEncoderDecoder,
    memory: Float[Array, "B R D"],
    memory_lengths: Int[Array, "B"],
    prompts: Prompts,
    slots: int,
) -> Caches:
    """A cache that holds the source, and all tokens of the prompts but the last.

    Where a prompt has one token, this writes it into a slot that is overwritten later.
    """
    before = max(1, prompts.tokens.shape[1] - 1)
    positions = prompts.positions()[:, :before]
    seen = (positions >= 0)[:, None, None, :]
    seen = jnp.pad(seen, ((0, 0), (0, 0), (0, 0), (0, slots - before)))
    seen &= jnp.arange(slots) <= jnp.arange(before)[:, None]
    keys = jnp.pad(positions, ((0, 0), (0, slots - before)))
    _, cache = model.decode(
        prompts.tokens[:, :before],
        memory,
        mask=explicit(seen) & at_positions(jnp.maximum(positions, 0), keys),
        memory_mask=padding_behind(memory_lengths),
        positions=jnp.maximum(positions, 0),
        slots=jnp.broadcast_to(jnp.arange(before), positions.shape),
        cache=model.empty_cache(len(memory), slots),
    )
    return cache


def _initial_state(
    cache: Caches, memory_lengths: Int[Array, "B"], prompts: Prompts, settings: Settings
) -> _State:
    """All beams are the same at first, so only one of them exists."""
    beams = len(memory_lengths), settings.beam_size
    outputs = len(memory_lengths), settings.num_kept
    return _State(
        step=jnp.asarray(0),
        cache=cache,
        tokens=jnp.broadcast_to(prompts.tokens[:, -1:], beams),
        texts=jnp.zeros((*beams, settings.max_length), jnp.int32),
        slots=jnp.zeros((*beams, settings.max_length), jnp.int32),
        log_probs=jnp.full(beams, -jnp.inf).at[:, 0].set(0.0),
        ended=Hypotheses(
            tokens=jnp.zeros((*outputs, settings.max_length), jnp.int32),
            lengths=jnp.zeros(outputs, jnp.int32),
            log_probs=jnp.full(outputs, -jnp.inf),
            scores=jnp.full(outputs, -jnp.inf),
        ),
        done=memory_lengths == 0,
    )


def _with_next_slot(state: _State) -> _State:
    """Slot k of this step belongs to beam k."""
    own = jnp.broadcast_to(jnp.arange(state.tokens.shape[1]), state.tokens.shape)
    return state._replace(slots=state.slots.at[:, :, state.step].set(own))


def _next_log_probs(
    model: AnyEncoderDecoder,
    state: _State,
    prompts: Prompts,
    memory_lengths: Int[Array, "B"],
    limits: Int[Array, "B"],
    settings: Settings,
) -> tuple[Float[Array, "B K V"], Caches]:
    """Log probabilities of every beam's next token after the rules, and the new cache."""
    batch, size, _ = state.slots.shape
    before = prompts.positions()[:, :-1]
    length = (num_slots(state.cache) - before.shape[1]) // size
    # A slot is seen if its step is not later than this one and the beam descends from it.
    seen = state.slots[:, :, :length, None] == jnp.arange(size)
    seen &= (jnp.arange(length) <= state.step)[:, None]
    seen = seen.reshape(batch, 1, size, length * size)
    # All beams see the prompt, except its padding and its last token, which they begin with.
    shared = jnp.broadcast_to(before[:, None, None] >= 0, (batch, 1, size, before.shape[1]))
    seen = jnp.concatenate([shared, seen], axis=-1)
    first = prompts.lengths[:, None] - 1
    keys = jnp.concatenate([before, first + jnp.arange(length * size) // size], axis=-1)
    positions = jnp.broadcast_to(first + state.step, (batch, size))
    slots = before.shape[1] + state.step * size + jnp.arange(size)
    features, cache = model.decode(
        state.tokens,
        None,
        mask=explicit(seen) & at_positions(positions, keys),
        memory_mask=padding_behind(memory_lengths),
        positions=positions,
        slots=jnp.broadcast_to(slots, (batch, size)),
        cache=state.cache,
    )
    logits = model.logits(features)
    # `transformers` applies the rules to logits when it decodes greedily.
    late = settings.foreign and size == 1
    scores = logits if late else jax.nn.log_softmax(logits)
    begins = jnp.broadcast_to(prompts.tokens[:, -1:, None], (batch, size, 1))
    written = jnp.concatenate([begins, state.texts], axis=2)
    at_limit = state.step + 1 >= limits
    scores = ruled(scores, written, state.step, at_limit, settings.search, settings.ends)
    if settings.transcript is not None:
        scores = settings.transcript.of_texts(scores, state.texts, state.step)
    log_probs = jax.nn.log_softmax(scores) if late else scores
    return log_probs.at[..., settings.unwritten].set(-jnp.inf)[..., : settings.num_tokens], cache


def _extensions(
    state: _State, log_probs: Float[Array, "B K V"], limits: Int[Array, "B"], settings: Settings
) -> _Candidates:
    """The best beams longer by one token, enough that K of them do not end."""
    size, num_tokens = settings.beam_size, settings.num_tokens
    is_end = jnp.isin(jnp.arange(num_tokens), jnp.array(settings.ends))
    at_limit = (state.step + 1 >= limits)[:, None]
    if not settings.foreign:
        # At its limit a row can only end.
        log_probs = jnp.where(at_limit[..., None] & ~is_end, -jnp.inf, log_probs)
    log_probs += state.log_probs[..., None]
    count = min((1 + len(settings.ends)) * size, size * num_tokens)
    best, flat = largest(log_probs, count)
    parents, tokens = flat // num_tokens, flat % num_tokens
    texts = _take(state.texts, parents).at[:, :, state.step].set(tokens)
    ends = is_end[tokens] | (at_limit & settings.foreign)
    return _Candidates(best, parents, tokens, texts, ends)


def _best_ended(
    state: _State, found: _Candidates, settings: Settings
) -> tuple[Hypotheses, Bool[Array, "B"]]:
    """The best outputs after this step, and whether a row has a new one, good or not."""
    ending = found.ends & (jnp.arange(found.ends.shape[1]) < settings.beam_size)
    ending &= jnp.isfinite(found.log_probs) & ~state.done[:, None]
    length = state.step + 1
    new = Hypotheses(
        tokens=found.texts,
        lengths=jnp.full(found.ends.shape, length),
        log_probs=found.log_probs,
        scores=jnp.where(ending, found.log_probs / settings.penalty(length), -jnp.inf),
    )
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), state.ended, new)
    _, kept = jax.lax.top_k(both.scores, settings.num_kept)
    return jax.tree.map(lambda values: _take(values, kept), both), jnp.any(ending, axis=1)


def _next_state(
    state: _State,
    cache: Caches,
    found: _Candidates,
    ended: Hypotheses,
    has_ended: Bool[Array, "B"],
    limits: Int[Array, "B"],
    settings: Settings,
) -> _State:
    """The best candidates that did not end become the beams of the next step."""
    length = state.step + 1
    log_probs, going_on = jax.lax.top_k(
        jnp.where(found.ends, -jnp.inf, found.log_probs), settings.beam_size
    )
    done = _is_done(ended, log_probs[:, 0], length, limits, settings)
    if settings.beam_size == 1:
        done = has_ended | (done & (not settings.foreign))
    return _State(
        step=length,
        cache=cache,
        tokens=_take(found.tokens, going_on),
        texts=_take(found.texts, going_on),
        slots=_take(state.slots, _take(found.parents, going_on)),
        log_probs=log_probs,
        ended=ended,
        # At the limit the search ends even if the model's scores are NaN.
        done=state.done | done | (length >= limits),
    )


def _is_done(
    ended: Hypotheses,
    best: Float[Array, "B"],
    length: Int[Array, ""],
    limits: Int[Array, "B"],
    settings: Settings,
) -> Bool[Array, "B"]:
    """Whether no better output is possible, given the log probability of each row's best beam."""
    # Log probabilities only fall, and the longest output is penalised least.
    longest, early = limits, settings.search.early_stopping
    if settings.foreign and not (early == "never" and settings.alpha > 0):
        longest = length
    done = ended.scores[:, -1] >= best / settings.penalty(longest)
    if settings.foreign and early == "true":
        done |= jnp.isfinite(ended.scores[:, -1])
    return done


def _outputs(last: _State, settings: Settings) -> Hypotheses:
    """The outputs of rows whose search has ended."""
    found = jax.tree.map(lambda x: x[:, : settings.num_return], last.ended)
    exist = jnp.isfinite(found.scores) & last.done[:, None]
    return found._replace(lengths=jnp.where(exist, found.lengths, 0))


def _take(values: Array, rows: Int[Array, "B K"]) -> Array:
    """Rows of axis 1 of each example."""
    rows = rows.reshape(*rows.shape, *(1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, rows, axis=1)
