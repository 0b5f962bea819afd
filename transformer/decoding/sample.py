"""Sampling from a language model, with a cache, compiled once and streamed.

A `Writer` reads the prompt in one call, then makes tokens inside a compiled loop: `OneByOne` here,
several at once in `decoding.speculation`. Rows of a batch may have prompts of different lengths:
each writes its own slots of the cache, and the causal rule hides slots that are not written yet.
The cache has room for the tokens that are asked for, not for the whole context, and in layers that
see only a window for no more than that.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from transformer.data.tokenizers.protocol import TextTokenizer
from transformer.decoding.preparing import prepared
from transformer.decoding.shapes import rounded_up
from transformer.errors import DataError
from transformer.nn.decoder import Caches, DecoderOnly
from transformer.ops.logits import Sampling, choose
from transformer.ops.masks import real_tokens
from transformer.ops.threefry import without_loop
from transformer.types import Params

# Tokens made between two returns to Python: few enough to watch, many enough to be fast.
STREAM_CHUNK = 16
# The fewest slots of a cache: fewer save no time.
_LEAST_SLOTS = 64

# Empty caches as they are to be kept, from empty ones as the model makes them.
Keeping = Callable[[Caches], Caches]
# What a writer knows of the texts between two calls.
State = TypeVar("State")


@runtime_checkable
class Writer(Protocol[State]):
    """Reads prompts, and makes the tokens that `OneByOne` would make."""

    def read(
        self, tokens: Int[np.ndarray, "B T"], lengths: Int[np.ndarray, "B"], room: int
    ) -> State:
        """Reads prompts.

        Args:
            tokens: the prompts, padded behind.
            lengths: their lengths.
            room: the longest text in the end.
        """
        ...

    def go_on(
        self, state: State, keys: Key[Array, "B"], made: int, count: int, chunk: int
    ) -> tuple[State, Int[Array, "B chunk"]]:
        """Makes `count` tokens for each row, at most `chunk`; the others are of no meaning.

        Args:
            state: from `read` or the call before.
            keys: the randomness of each row.
            made: the number of tokens that were made before.
            count: the number of tokens to make.
            chunk: the width of the result.
        """
        ...


def as_it_is(cache: Caches) -> Caches:
    """Keeps a cache in the model's dtype."""
    return cache


class Upcoming(NamedTuple):
    """The state of `OneByOne`: scores of each row's next token, and that token's position."""

    logits: Float[Array, "B V"]
    cache: Caches
    positions: Int[Array, "B"]


@dataclasses.dataclass(frozen=True)
class OneByOne:
    """Makes one token with each pass of the model.

    Attributes:
        model: a language model.
        params: its parameters.
        sampling: how to choose tokens.
        kept: how the empty cache is kept, such as `nn.caches.in_int8`.
    """

    model: DecoderOnly
    params: Params
    sampling: Sampling
    kept: Keeping = as_it_is

    def read(
        self, tokens: Int[np.ndarray, "B T"], lengths: Int[np.ndarray, "B"], room: int
    ) -> Upcoming:
        """Reads prompts; see `Writer`."""
        return _read(self.model.for_writing(), room, self.kept, self.params, tokens, lengths)

    def go_on(
        self, state: Upcoming, keys: Key[Array, "B"], made: int, count: int, chunk: int
    ) -> tuple[Upcoming, Int[Array, "B chunk"]]:
        """Makes tokens; see `Writer`."""
        model = self.model.for_writing()
        return _continue(model, self.sampling, chunk, self.params, state, keys, made, count)


def write(
    model: DecoderOnly,
    params: Params,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    stop: str = "",
    stop_ids: Sequence[int] = (),
    begin: int | None = None,
    on_text: Callable[[int, str], None] | None = None,
    writer: Writer | None = None,
) -> list[str]:
    """Continues each prompt.

    Tokens without a text write nothing. They exist if the model's table is larger than the
    vocabulary, or the vocabulary has holes.

    Args:
        model: a language model.
        params: its parameters.
        tokenizer: the model's tokenizer.
        prompts: the texts to continue; an empty one begins with the token that the tokenizer puts
            in front of all texts, or with `begin`.
        max_new_tokens: how many tokens to add to each prompt.
        sampling: how to choose them.
        seed: random seed; row i makes the same choices in every batch.
        stop: a text ends before the first occurrence of this string in what was added.
        stop_ids: a text ends before the first of these tokens, even if they have no text.
        begin: the token that begins an empty prompt; None if there is none.
        on_text: called with the row and each new piece of its text, as it is made.
        writer: see `generate`.

    Returns:
        Prompts and continuations.

    Raises:
        DataError: if a prompt is empty without a begin token, or has a character that the tokenizer
            does not know.
    """
    ids = [_begun(tokenizer, prompt, begin, model.vocab_size) for prompt in prompts]
    streams = [_StoppableStream(tokenizer, stop, stop_ids) for _ in prompts]
    chunks = generate(
        model,
        params,
        ids,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        writer=writer,
    )
    for chunk in chunks:
        for row, stream in enumerate(streams):
            piece = stream.push(chunk[row])
            if piece and on_text is not None:
                on_text(row, piece)
        if all(stream.finished for stream in streams):
            break
    for row, stream in enumerate(streams):
        piece = stream.close()
        if piece and on_text is not None:
            on_text(row, piece)
    return [prompt + stream.text for prompt, stream in zip(prompts, streams, strict=True)]


def _begun(tokenizer: TextTokenizer, prompt: str, begin: int | None, vocab_size: int) -> np.ndarray:
    """The tokens of a prompt, at least one.

    Raises:
        DataError: if there are none.
    """
    ids = tokenizer.encode_prompt(prompt)
    if len(ids):
        return ids
    if begin is None or not 0 <= begin < vocab_size:
        raise DataError(
            "the prompt is empty, and the model has no token that begins a text: give at least one "
            "character to continue from."
        )
    return np.array([begin], np.int32)


def generate(
    model: DecoderOnly,
    params: Params,
    prompts: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    chunk: int = STREAM_CHUNK,
    writer: Writer | None = None,
) -> Iterator[np.ndarray]:
    """Yields the continuation of token prompts, `[B, up to chunk]` tokens at a time.

    Once a text fills the model's context, the model continues from the last half context: learned
    positions end at the context, and reading half a context again every half context costs little.

    Args:
        model: a language model.
        params: its parameters.
        prompts: token ids, one array for each row, none empty.
        max_new_tokens: how many tokens to make for each row.
        sampling: how to choose them.
        seed: random seed, from 0 to 2**32 - 1.
        chunk: how many tokens to make between two returns to Python.
        writer: makes the tokens; None takes `OneByOne`.
    """
    if writer is None:
        writer = OneByOne(*prepared(model, params), sampling)
    histories = [list(map(int, prompt)) for prompt in prompts]
    starts = [0] * len(prompts)
    keys = _row_keys(jnp.uint32(seed), len(prompts))
    made = 0
    while made < max_new_tokens:
        starts = [_start(*row, model.context) for row in zip(histories, starts, strict=True)]
        windows = [history[start:] for history, start in zip(histories, starts, strict=True)]
        longest = max(map(len, windows))
        padded = np.zeros((len(windows), rounded_up(longest, model.context, least=8)), np.int32)
        for row, window in enumerate(windows):
            padded[row, : len(window)] = window
        lengths = np.array([len(window) for window in windows], np.int32)
        room = min(model.context - longest, max_new_tokens - made)
        slots = rounded_up(longest + room, model.context, least=_LEAST_SLOTS)
        state = writer.read(padded, lengths, slots)
        while room > 0:
            count = min(room, chunk)
            state, tokens = writer.go_on(state, keys, made, count, chunk)
            tokens = np.asarray(tokens)[:, :count]
            for history, new in zip(histories, tokens, strict=True):
                history.extend(new.tolist())
            made, room = made + count, room - count
            yield tokens


def tokens_read(count: int, context: int) -> int:
    """How many of a prompt's tokens are read: all, or the last half context if it is full.

    Args:
        count: the number of tokens of the prompt.
        context: the model's context.
    """
    return count if count < context else context // 2


def _start(history: list[int], start: int, context: int) -> int:
    """The first token of a row that the model reads: half a context from the end once it is full.

    Each row moves on separately, so its text does not depend on the rows beside it.
    """
    return len(history) - tokens_read(len(history) - start, context)


@functools.partial(jax.jit, static_argnums=1)
def _row_keys(seed: UInt32[Array, ""], num_rows: int) -> Key[Array, "B"]:
    """One key for each row, the same in every batch."""
    key = without_loop(jax.random.key(seed))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _read(
    model: DecoderOnly,
    slots: int,
    kept: Keeping,
    params: Params,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
) -> Upcoming:
    """Fills an empty cache with prompts and scores the token after each."""

    def run(module: DecoderOnly) -> Upcoming:
        cache = kept(module.empty_cache(tokens.shape[0], slots))
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        valid = real_tokens(tokens.shape[1], lengths)
        features, cache = module.features(tokens, positions=positions, valid=valid, cache=cache)
        last = jnp.take_along_axis(features, (lengths - 1)[:, None, None], axis=1)
        return Upcoming(module.logits(last)[:, 0], cache, lengths)

    return nn.apply(run, model)({"params": params})


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _continue(
    model: DecoderOnly,
    sampling: Sampling,
    chunk: int,
    params: Params,
    state: Upcoming,
    keys: Key[Array, "B"],
    made: Int[Array, ""],
    count: Int[Array, ""],
) -> tuple[Upcoming, Int[Array, "B chunk"]]:
    """Makes `count` tokens (at most `chunk`); the rest of the result is zero."""

    def one_token(index: Array, made_so_far: tuple[Upcoming, Array]) -> tuple[Upcoming, Array]:
        (logits, cache, positions), tokens = made_so_far
        token = choose(logits, keys, made + index, sampling)
        logits, cache = model.apply(
            {"params": params}, token[:, None], positions=positions[:, None], cache=cache
        )
        return Upcoming(logits[:, 0], cache, positions + 1), tokens.at[:, index].set(token)

    tokens = jnp.zeros((keys.shape[0], chunk), jnp.int32)
    return jax.lax.fori_loop(0, count, one_token, (state, tokens))


class _StoppableStream:
    """The text of one row up to its end; holds back a possible beginning of the stop string."""

    def __init__(self, tokenizer: TextTokenizer, stop: str, stop_ids: Sequence[int]) -> None:
        self._stream = tokenizer.stream()
        self._stop = stop
        self._stop_ids = frozenset(stop_ids)
        self._held = ""
        self.text = ""
        self.finished = False

    def push(self, tokens: np.ndarray) -> str:
        """Takes new tokens and returns the text that is final."""
        if self.finished:
            return ""
        for token in tokens.tolist():
            if token in self._stop_ids:
                self.finished = True
                self._held += self._stream.close()
                break
            self._held += self._stream.push(token)
        certain = len(self._held)
        if self._stop:
            found = self._held.find(self._stop)
            if found >= 0:
                self.finished, certain = True, found
            elif not self.finished:
                certain -= _overlap(self._held, self._stop)
        return self._release(certain)

    def close(self) -> str:
        """Returns what was held back and is neither the stop string nor a whole character."""
        if self.finished:
            return ""
        self._held += self._stream.close()
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        piece, self._held = self._held[:length], self._held[length:]
        self.text += piece
        return piece


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
