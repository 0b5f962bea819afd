"""Outputs of encoder-decoders behind prompts, token by token: the most probable token, or drawn.

In this file, P is the longest prompt and L the longest output.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from transformer.decoding.growing import rooms, write_growing
from transformer.decoding.rows import caches_row_by_row
from transformer.nn.encoder_decoder import AnyEncoderDecoder, Caches, num_slots
from transformer.ops.logits import most_probable
from transformer.ops.masks import explicit
from transformer.ops.transcript_rules import TranscriptRules
from transformer.types import Params

# The fewest tokens that a cache has room for.
_LEAST_ROOM = 128


class Prompts(NamedTuple):
    """Tokens in front of each output.

    Attributes:
        tokens: padding first, so that all prompts end at the last column.
        lengths: of each prompt, at least 1.
    """

    tokens: Int[Array | np.ndarray, "B P"]
    lengths: Int[Array | np.ndarray, "B"]

    def positions(self) -> Int[Array, "B P"]:
        """The position of each token; below 0 for padding."""
        return jnp.arange(self.tokens.shape[1]) - (self.tokens.shape[1] - self.lengths[:, None])


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to write; static at compilation.

    Attributes:
        end: the token that ends an output.
        max_length: L.
        rules: which tokens may follow.
        drawn: whether tokens are drawn by their probabilities.
        watched: a token, and how many columns before the end of the prompts the column is whose
            next token it might have been; see `Written.watched`.
    """

    end: int
    max_length: int
    rules: TranscriptRules
    drawn: bool = False
    watched: tuple[int, int] = (0, 1)


class Written(NamedTuple):
    """The output of each row.

    Attributes:
        tokens: with the end token, if there is one; then zeros.
        lengths: with the end token.
        log_probs: of the whole output in nats, among the tokens that the rules allow.
        watched: the probability of the watched token, without rules.
    """

    tokens: Int[Array | np.ndarray, "B L"]
    lengths: Int[Array | np.ndarray, "B"]
    log_probs: Float[Array | np.ndarray, "B"]
    watched: Float[Array | np.ndarray, "B"]


class _State(NamedTuple):
    """What is written before step `step`, and the scores of the next tokens."""

    step: Int[Array, ""]
    cache: Caches
    logits: Float[Array, "B V"]
    recent: Int[Array, "B 3"]
    tokens: Int[Array, "B L"]
    lengths: Int[Array, "B"]
    log_probs: Float[Array, "B"]
    done: Bool[Array, "B"]


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def write(
    model: AnyEncoderDecoder,
    params: Params,
    memory: Float[Array, "B R D"],
    prompts: Prompts,
    limits: Int[Array, "B"],
    temperature: Float[Array, ""],
    keys: Key[Array, "B"],
    settings: Settings,
) -> Written:
    """Writes until every row has its end token, or as many tokens as its limit.

    Args:
        model: an encoder-decoder.
        params: its parameters.
        memory: from its `encode`, all of it to be attended to.
        prompts: what stands in front of the outputs.
        limits: the longest output of each row, its end included; of a row with 0 nothing is
            written.
        temperature: divides scores before tokens are drawn.
        keys: of the random numbers of each row.
        settings: how to write.
    """
    variables, size = {"params": params}, prompts.tokens.shape[1]
    steps = rooms(settings.max_length, least=_LEAST_ROOM)

    def advance(state: _State) -> _State:
        scores = settings.rules(state.logits, state.recent, state.step)
        token = most_probable(scores)
        if settings.drawn:
            now = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)
            token = jax.vmap(jax.random.categorical)(now, scores / temperature)
        token = jnp.where(state.done, 0, token.astype(jnp.int32))
        chosen = jnp.take_along_axis(scores, token[:, None], axis=-1)[:, 0]
        gained = chosen - jax.nn.logsumexp(scores, axis=-1)
        logits, cache = nn.apply(_next, model)(variables, token, state.step, state.cache, prompts)
        length = state.step + 1
        return _State(
            step=length,
            cache=cache,
            logits=logits,
            recent=settings.rules.remembered(state.recent, token),
            tokens=state.tokens.at[:, state.step].set(token),
            lengths=jnp.where(state.done, state.lengths, length),
            log_probs=jnp.where(state.done, state.log_probs, state.log_probs + gained),
            # At the limit all ends even if the scores are NaN.
            done=state.done | (token == settings.end) | (length >= limits),
        )

    features, cache = _read(model, params, memory, prompts, steps[0])
    token, place = settings.watched
    columns = jnp.stack([features[:, -place], features[:, -1]], axis=1)
    logits = model.apply(variables, columns, method="logits")
    rows = len(memory)
    first = _State(
        step=jnp.asarray(0),
        cache=cache,
        logits=logits[:, 1],
        recent=jnp.full((rows, 3), -1),
        tokens=jnp.zeros((rows, settings.max_length), jnp.int32),
        lengths=jnp.zeros(rows, jnp.int32),
        log_probs=jnp.zeros(rows),
        done=limits == 0,
    )
    last = write_growing(advance, first, steps, lambda room: size + room)
    watched = jax.nn.softmax(logits[:, 0])[:, token]
    return Written(last.tokens, last.lengths, last.log_probs, watched)


@functools.partial(jax.jit, static_argnames=("model", "column"))
def following(
    model: AnyEncoderDecoder,
    params: Params,
    memory: Float[Array, "B R D"],
    prompts: Prompts,
    column: int = 1,
) -> Float[Array, "B V"]:
    """Logits of the tokens that may follow a column of the prompts, counted from their end."""
    features, _ = _read(model, params, memory, prompts, room=0)
    last = features[:, features.shape[1] - column, None]
    return model.apply({"params": params}, last, method="logits")[:, 0]


def _read(
    model: AnyEncoderDecoder,
    params: Params,
    memory: Float[Array, "B R D"],
    prompts: Prompts,
    room: int,
) -> tuple[Float[Array, "B P D"], Caches]:
    """`read`, in the way that is fastest here."""

    def compute(memory: Array, prompts: Prompts) -> tuple[Array, Caches]:
        return nn.apply(read, model)({"params": params}, memory, prompts, room)

    return caches_row_by_row(model, compute, memory, prompts)


def read(
    model: AnyEncoderDecoder,
    memory: Float[Array, "B R D"],
    prompts: Prompts,
    room: int = 0,
) -> tuple[Float[Array, "B P D"], Caches]:
    """The states of the prompts, and a cache that holds them and the memory.

    Args:
        model: an encoder-decoder.
        memory: from its `encode`.
        prompts: what it reads.
        room: slots of the cache for further tokens.
    """
    rows, size = prompts.tokens.shape
    positions = prompts.positions()
    seen = jnp.pad(positions >= 0, ((0, 0), (0, room)))[:, None, None, :]
    seen &= jnp.arange(size + room) <= jnp.arange(size)[:, None]
    return model.decode(
        prompts.tokens,
        memory,
        mask=explicit(seen),
        memory_mask=None,
        positions=jnp.maximum(positions, 0),
        slots=jnp.broadcast_to(jnp.arange(size), (rows, size)),
        cache=model.empty_cache(rows, size + room),
    )


def _next(
    model: AnyEncoderDecoder,
    token: Int[Array, "B"],
    step: Int[Array, ""],
    cache: Caches,
    prompts: Prompts,
) -> tuple[Float[Array, "B V"], Caches]:
    """Scores of the tokens that may follow a new token."""
    rows, size = prompts.tokens.shape
    slots = jnp.arange(num_slots(cache))
    seen = (slots >= size - prompts.lengths[:, None]) & (slots <= size + step)
    features, cache = model.decode(
        token[:, None],
        None,
        mask=explicit(seen[:, None, None, :]),
        memory_mask=None,
        positions=(prompts.lengths + step)[:, None],
        slots=jnp.broadcast_to(size + step, (rows, 1)),
        cache=cache,
    )
    return model.logits(features)[:, 0], cache
