"""When the tokens of a window were said, from the decoder's attention to the recording."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from transformer.data.audio.windows import TIME_STEP
from transformer.decoding.prompted import Prompts, read
from transformer.errors import ConfigError
from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.nn.layouts import layer_name, unstacked
from transformer.nn.taps import RECORDED
from transformer.ops.time_warping import token_vectors
from transformer.types import Params

# The number of a layer of the decoder, and of a head in it.
Heads = tuple[tuple[int, ...], ...]


class Line(NamedTuple):
    """The text of a window.

    Attributes:
        opening: the tokens in front of it.
        tokens: what was written, without the end token.
        has_end: whether the end token came behind it.
        num_vectors: how many vectors of the memory are of the recording.
    """

    opening: tuple[int, ...]
    tokens: tuple[int, ...]
    has_end: bool
    num_vectors: int


def usual_heads(num_layers: int, num_heads: int) -> Heads:
    """The heads that are used where none are named: all of the upper half of the decoder."""
    layers = range(num_layers // 2, num_layers)
    return tuple((layer, head) for layer in layers for head in range(num_heads))


def require_heads(heads: Heads, num_layers: int, num_heads: int) -> None:
    """Refuses heads that a model does not have.

    Raises:
        ConfigError: names the first.
    """
    for pair in heads:
        if len(pair) != 2 or pair[0] >= num_layers or pair[1] >= num_heads:
            raise ConfigError(
                f"config.task.windows.alignment_heads has {list(pair)}: pairs of a layer below "
                f"{num_layers} and a head below {num_heads} are expected."
            )


def token_ends(
    model: AnyEncoderDecoder,
    params: Params,
    memory: Float[Array, "B R D"],
    lines: Mapping[int, Line],
    context: int,
    heads: Heads,
    width: int,
) -> dict[int, np.ndarray]:
    """By row, the seconds in a window at which each token ends.

    At its own place the decoder reads a token and looks for the next one. Its weights there begin
    where the next one begins, which is where the token ends; so it is in `transformers`, too.

    Args:
        model: an encoder-decoder.
        params: its parameters.
        memory: from its `encode`.
        lines: by row, what was written; rows of the memory without a text are left out.
        context: the most tokens that the decoder reads.
        heads: whose weights follow the sound.
        width: of the median filter over the vectors.
    """
    tokens = np.zeros((len(memory), context), np.int32)
    lengths = np.ones(len(memory), np.int32)
    for row, line in lines.items():
        text = _read_tokens(line)
        tokens[row, context - len(text) :], lengths[row] = text, len(text)
    weights = _weights(model, params, memory, Prompts(tokens, lengths), heads)
    return {row: _ends(line, weights[row], width) for row, line in lines.items()}


def _read_tokens(line: Line) -> tuple[int, ...]:
    """What the decoder reads: all but the last token, which may be the end."""
    return line.opening + (line.tokens if line.has_end else line.tokens[:-1])


def _ends(line: Line, weights: Float[Array, "A T R"], width: int) -> np.ndarray:
    count = len(_read_tokens(line)) - len(line.opening)
    if not count:
        return np.zeros(len(line.tokens))
    # The rest is computed here, of the rows of the text only.
    found = np.asarray(weights[:, weights.shape[1] - count :, : max(1, line.num_vectors)])
    ends = token_vectors(found, width) * TIME_STEP
    # The last token was never read if the text was cut.
    return np.append(ends, [ends[-1]] * (len(line.tokens) - count))


@functools.partial(jax.jit, static_argnames=("model", "heads"))
def _weights(
    model: AnyEncoderDecoder,
    params: Params,
    memory: Float[Array, "B R D"],
    prompts: Prompts,
    heads: Heads,
) -> Float[Array, "B A T R"]:
    """The weights of some heads; what else is recorded is not computed."""
    watched = nn.apply(read, model, mutable=[RECORDED])
    _, found = watched({"params": params}, memory, prompts)
    layers = unstacked(found[RECORDED]["decoder"])
    weights: Sequence[Float[Array, "B T R"]] = [
        layers[layer_name(layer)]["cross_attention"]["weights"][:, head] for layer, head in heads
    ]
    return jnp.stack(weights, axis=1)
