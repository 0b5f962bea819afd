"""Writing several tokens with one pass of the model, the same ones as without (exact speculation).

Guesses are cheap: the text is looked up in itself (`Lookup`), or a smaller model writes them
(`Draft`). One pass of the model then scores all of them, and each place is decided as if it had
been reached token by token: with the randomness that belongs to this row and this place. Guesses
stay as long as they are what was decided; the first one that is not is replaced, and the next pass
begins behind it. So a guess changes the time that a text takes and not the text, up to ties in the
last bits of the scores. Leviathan et al. 2023 keep the distribution; with randomness that belongs
to places, the text itself is kept.
"""

import dataclasses
import functools
from typing import NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from transformer.decoding.sample import Keeping, as_it_is
from transformer.nn.decoder import Caches, DecoderOnly
from transformer.ops.logits import Sampling, choose
from transformer.ops.masks import real_tokens
from transformer.ops.repetition import continued_as_before
from transformer.types import Params

# What guesses keep between two passes.
Memory = PyTree[Array]


class Text(NamedTuple):
    """The tokens of each row.

    Attributes:
        tokens: `[B, S]`, behind the text anything.
        lengths: `[B]`, the number of tokens of the text.
        made: `[B]`, how many of them the model has made.
    """

    tokens: Int[Array, "B S"]
    lengths: Int[Array, "B"]
    made: Int[Array, "B"]


@runtime_checkable
class Guesses(Protocol):
    """Guesses the next tokens; hashable, as its methods are compiled.

    Attributes:
        count: how many tokens a guess has.
    """

    count: int

    def read(
        self, params: Params, tokens: Int[Array, "B T"], lengths: Int[Array, "B"], slots: int
    ) -> Memory:
        """Reads prompts of these lengths; `slots` is the room that texts need in a cache."""
        ...

    def guess(
        self, params: Params, memory: Memory, text: Text, keys: Key[Array, "B"], sampling: Sampling
    ) -> tuple[Int[Array, "B count"], Memory]:
        """The tokens that may come next."""
        ...


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Guesses that the text goes on as it did before (prompt lookup).

    Attributes:
        count: how many tokens a guess has.
        longest: at most so many of the last tokens are compared.
    """

    count: int = 8
    longest: int = 3

    def read(
        self, params: Params, tokens: Int[Array, "B T"], lengths: Int[Array, "B"], slots: int
    ) -> Memory:
        """Keeps nothing."""
        del params, tokens, lengths, slots
        return ()

    def guess(
        self, params: Params, memory: Memory, text: Text, keys: Key[Array, "B"], sampling: Sampling
    ) -> tuple[Int[Array, "B count"], Memory]:
        """See `ops.repetition.continued_as_before`."""
        del params, keys, sampling
        find = functools.partial(continued_as_before, longest=self.longest, count=self.count)
        return jax.vmap(find)(text.tokens, text.lengths), memory


@dataclasses.dataclass(frozen=True)
class Draft:
    """Guesses what a smaller model writes, with the randomness of the large one.

    Attributes:
        model: a model with the same tokens, and at least the same context.
        count: how many tokens a guess has.
    """

    model: DecoderOnly
    count: int = 4

    def read(
        self, params: Params, tokens: Int[Array, "B T"], lengths: Int[Array, "B"], slots: int
    ) -> Memory:
        """The cache of the smaller model, with the prompts in it."""
        # A guess is written behind the text, and then `count` + 1 tokens are read again.
        return _read(self.model, slots, 2 * self.count, as_it_is, params, tokens, lengths)

    def guess(
        self, params: Params, memory: Memory, text: Text, keys: Key[Array, "B"], sampling: Sampling
    ) -> tuple[Int[Array, "B count"], Memory]:
        """Reads what came since the last guess, and writes token by token."""

        def following(tokens: Array, start: Array, cache: Caches) -> tuple[Array, Caches]:
            positions = _positions(start, tokens.shape[1], self.model.context)
            return self.model.apply({"params": params}, tokens, positions=positions, cache=cache)

        # One pass adds at most `count` + 1 tokens. Those that were read before are read again.
        start = jnp.maximum(text.lengths - (self.count + 1), 0)
        logits, cache = following(_slices(text.tokens, start, self.count + 1), start, memory)
        last = (text.lengths - 1 - start)[:, None, None]
        scores = jnp.take_along_axis(logits, last, axis=1)[:, 0]
        guesses = [choose(scores, keys, text.made, sampling)]
        for index in range(1, self.count):
            place = text.lengths + index - 1
            logits, cache = following(guesses[-1][:, None], place, cache)
            guesses.append(choose(logits[:, 0], keys, text.made + index, sampling))
        return jnp.stack(guesses, axis=1), cache


class _State(NamedTuple):
    """Texts, the keys and values of all their tokens but the last, and the memory of guesses."""

    text: Text
    cache: Caches
    memory: Memory


class _Loop(NamedTuple):
    """The state of the compiled loop; `passes` are those of the model."""

    state: _State
    passes: Int[Array, ""]


@dataclasses.dataclass
class Speculative:
    """Makes the tokens of `decoding.sample.OneByOne`, several with each pass of the model.

    Attributes:
        model: a language model.
        params: its parameters.
        sampling: how to choose tokens.
        guesses: makes the guesses.
        guess_params: parameters of the smaller model, if there is one.
        kept: how the model's empty cache is kept; see `decoding.sample.OneByOne`.
        tokens: how many tokens each row has got so far.
        passes: how many passes of the model that took.
    """

    model: DecoderOnly
    params: Params
    sampling: Sampling
    guesses: Guesses
    guess_params: Params = dataclasses.field(default_factory=dict)
    kept: Keeping = as_it_is
    tokens: int = 0
    passes: int = 0

    def read(
        self, tokens: Int[np.ndarray, "B T"], lengths: Int[np.ndarray, "B"], room: int
    ) -> _State:
        """Reads prompts; see `decoding.sample.Writer`."""
        # Behind a whole text there is room for a guess and what is decided after it.
        slots, count = room + self.guesses.count + 1, self.guesses.count
        prompts, given = jnp.asarray(tokens), jnp.asarray(lengths)
        model = self.model.for_writing()
        cache = _read(model, slots, count, self.kept, self.params, prompts, given)
        memory = self.guesses.read(self.guess_params, prompts, given, slots)
        whole = jnp.pad(prompts, ((0, 0), (0, slots - tokens.shape[1])))
        text = Text(whole, given, jnp.zeros(len(tokens), jnp.int32))
        return _State(text, cache, memory)

    def go_on(
        self, state: _State, keys: Key[Array, "B"], made: int, count: int, chunk: int
    ) -> tuple[_State, Int[Array, "B chunk"]]:
        """Makes tokens; see `decoding.sample.Writer`."""
        model, params = self.model.for_writing(), (self.params, self.guess_params)
        state, tokens, passes = _go_on(
            model, self.sampling, self.guesses, chunk, params, state, keys, made, count
        )
        self.tokens, self.passes = self.tokens + count, self.passes + int(passes)
        return state, tokens


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _read(
    model: DecoderOnly,
    slots: int,
    steps_back: int,
    kept: Keeping,
    params: Params,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
) -> Caches:
    """A cache that holds prompts; the texts may go back by so many steps."""

    def run(module: DecoderOnly) -> Caches:
        cache = kept(module.empty_cache(tokens.shape[0], slots, steps_back=steps_back))
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        valid = real_tokens(tokens.shape[1], lengths)
        return module.features(tokens, positions=positions, valid=valid, cache=cache)[1]

    return nn.apply(run, model)({"params": params})


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=5)
def _go_on(
    model: DecoderOnly,
    sampling: Sampling,
    guesses: Guesses,
    chunk: int,
    params: tuple[Params, Params],
    state: _State,
    keys: Key[Array, "B"],
    made: Int[Array, ""],
    count: Int[Array, ""],
) -> tuple[_State, Int[Array, "B chunk"], Int[Array, ""]]:
    """Makes `count` tokens for each row; rows that are ahead wait for the others."""
    text = state.text
    before, until = text.lengths, made + count
    state = state._replace(text=text._replace(made=jnp.broadcast_to(made, before.shape)))

    def waits(loop: _Loop) -> Array:
        return jnp.any(loop.state.text.made < until)

    def one_pass(loop: _Loop) -> _Loop:
        text, cache, memory = loop.state
        guessed, memory = guesses.guess(params[1], memory, text, keys, sampling)
        last = jnp.take_along_axis(text.tokens, text.lengths[:, None] - 1, axis=1)
        tokens = jnp.concatenate([last, guessed], axis=1)
        positions = _positions(text.lengths - 1, tokens.shape[1], model.context)
        logits, cache = model.apply({"params": params[0]}, tokens, positions=positions, cache=cache)
        places = text.made[:, None] + jnp.arange(tokens.shape[1])
        pick = jax.vmap(choose, in_axes=(1, None, 1, None), out_axes=1)
        decided = pick(logits, keys, places, sampling)
        right = jnp.cumprod(decided[:, :-1] == guessed, axis=1).sum(axis=1)
        new = jnp.clip(until - text.made, 0, right + 1)
        text = Text(_put(text.tokens, decided, text.lengths), text.lengths + new, text.made + new)
        return _Loop(_State(text, cache, memory), loop.passes + 1)

    state, passes = jax.lax.while_loop(waits, one_pass, _Loop(state, jnp.asarray(0)))
    return state, _slices(state.text.tokens, before, chunk), passes


def _positions(start: Int[Array, "B"], count: int, context: int) -> Int[Array, "B T"]:
    """Consecutive positions.

    A guess may reach beyond the context, where its tokens are of no meaning: they have the last
    position, since some models have no vector for others.
    """
    return jnp.minimum(start[:, None] + jnp.arange(count), context - 1)


def _slices(values: Int[Array, "B S"], start: Int[Array, "B"], size: int) -> Int[Array, "B size"]:
    """So many consecutive values of each row; beyond the end of a row, its last value."""
    places = jnp.minimum(start[:, None] + jnp.arange(size), values.shape[1] - 1)
    return jnp.take_along_axis(values, places, axis=1)


def _put(
    old: Int[Array, "B S"], new: Int[Array, "B T"], start: Int[Array, "B"]
) -> Int[Array, "B S"]:
    """Each row with new values from `start` on."""
    return jax.vmap(jax.lax.dynamic_update_slice_in_dim, (0, 0, 0, None))(old, new, start, 0)
