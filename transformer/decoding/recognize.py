"""From the frames of recordings to text: by attention, by CTC, or by both."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.decoding.beam import Settings, beam_search
from transformer.decoding.ctc import Prefix, prefix_search
from transformer.decoding.prompted import Prompts
from transformer.decoding.shapes import rounded_up
from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.ops.masks import real_tokens
from transformer.ops.search_rules import USUAL, Search
from transformer.ops.transcript_rules import TranscriptRules
from transformer.types import Params


@runtime_checkable
class Reader(Protocol):
    """A model that reads frames and gives each vector of its memory a token or none."""

    def encode(
        self, source: Float[Array, "B T M"], source_segments: Int[Array, "B T"] | None
    ) -> Float[Array, "B R D"]:
        """The memory."""
        ...

    def aligned(self, memory: Float[Array, "B R D"]) -> Float[Array, "B R _"]:
        """Logits of the tokens, and of none."""
        ...

    def memory_lengths(self, source_lengths: Int[Array, "B"]) -> Int[Array, "B"]:
        """How many vectors belong to so many frames."""
        ...


@dataclasses.dataclass(frozen=True)
class Recognition:
    """How the text of a recording is found.

    Attributes:
        end: the end token.
        num_tokens: outputs contain only so many tokens of the vocabulary.
        max_length: the longest output, its end included.
        kind: `joint`, `ctc` or `attention`.
        size: hypotheses that are kept.
        ctc_weight: the weight of CTC where both count.
        length_penalty: see `search_rules.length_penalty`; of attention alone.
        search: further rules of attention alone.
        prompt: tokens in front of outputs, behind the one that begins them; of attention alone.
        transcript: rules of models like Whisper; of attention alone.
    """

    end: int
    num_tokens: int
    max_length: int
    kind: str = "joint"
    size: int = 8
    ctc_weight: float = 0.3
    length_penalty: float = 0.0
    search: Search = USUAL
    prompt: tuple[int, ...] = ()
    transcript: TranscriptRules | None = None


class Found(NamedTuple):
    """The text of a recording as tokens.

    Attributes:
        ids: without the end token.
        score: a log probability in nats, of one kind or weighted of both; higher is better.
    """

    ids: np.ndarray
    score: float


def recognize(
    model: AnyEncoderDecoder | Reader,
    params: Params,
    frames: Float[Array, "B T M"],
    num_frames: Int[Array, "B"],
    how: Recognition,
) -> list[Found]:
    """The best text of each recording.

    Args:
        model: with a decoder unless CTC alone counts, and with an output layer for CTC unless
            attention alone counts.
        params: its parameters.
        frames: features of the recordings.
        num_frames: how many of each row are valid; 0 gives an empty text.
        how: how to search.
    """
    if how.kind == "attention":
        return _by_attention(model, params, frames, num_frames, how)
    memory, *rest = encoded(model, params, frames, num_frames)
    log_probs, lengths = jax.device_get(rest)
    found = []
    unwritten = [how.end, *range(how.num_tokens, log_probs.shape[2] - 1)]
    for row, length in zip(log_probs, lengths, strict=True):
        usable = np.array(row[:length])
        usable[:, unwritten] = -np.inf
        found.append(prefix_search(usable, row.shape[1] - 1, how.size))
    if how.kind == "ctc":
        return [Found(np.array(best[0].ids, np.int32), best[0].log_prob) for best in found]
    written = _written(model, params, memory, num_frames, found, how)
    results = []
    for prefixes, scores in zip(found, written, strict=True):
        weight = how.ctc_weight
        totals = [
            (1.0 - weight) * float(score) + weight * prefix.log_prob
            for prefix, score in zip(prefixes, scores, strict=False)
        ]
        best = int(np.argmax(totals))
        results.append(Found(np.array(prefixes[best].ids, np.int32), totals[best]))
    return results


@functools.partial(jax.jit, static_argnums=0)
def encoded(
    model: AnyEncoderDecoder | Reader,
    params: Params,
    frames: Float[Array, "B T M"],
    num_frames: Int[Array, "B"],
) -> tuple[Float[Array, "B R D"], Float[Array, "B R _"], Int[Array, "B"]]:
    """The memory, the log probabilities of each vector's token, and the vectors of each row.

    The last log probability is that of no token.
    """

    def run(module: Reader) -> tuple[Array, Array]:
        valid = real_tokens(frames.shape[1], num_frames)
        memory = module.encode(frames, valid.astype(jnp.int32))
        return memory, jax.nn.log_softmax(module.aligned(memory))

    memory, log_probs = nn.apply(run, model)({"params": params})
    return memory, log_probs, model.memory_lengths(num_frames)


def _written(
    model: AnyEncoderDecoder,
    params: Params,
    memory: Float[Array, "B R D"],
    num_frames: Int[Array, "B"],
    found: Sequence[Sequence[Prefix]],
    how: Recognition,
) -> Float[np.ndarray, "B K"]:
    """The log probability of each hypothesis as the decoder's output, its end included."""
    longest = max(len(prefix.ids) for prefixes in found for prefix in prefixes) + 1
    length = rounded_up(longest, least=8)
    target = np.full((len(found), how.size, length), how.end, np.int32)
    labels = np.full((len(found), how.size, length), IGNORED, np.int32)
    for row, prefixes in enumerate(found):
        for place, prefix in enumerate(prefixes):
            ids = (*prefix.ids, how.end)
            target[row, place, 1 : len(ids)] = prefix.ids
            labels[row, place, : len(ids)] = ids
    return np.asarray(_score(model, params, memory, num_frames, target, labels))


@functools.partial(jax.jit, static_argnums=0)
def _score(
    model: AnyEncoderDecoder,
    params: Params,
    memory: Float[Array, "B R D"],
    num_frames: Int[Array, "B"],
    target: Int[Array, "B K U"],
    labels: Int[Array, "B K U"],
) -> Float[Array, "B K"]:
    batch, size, length = target.shape

    def repeated(values: Array) -> Array:
        return jnp.repeat(values, size, axis=0)

    def run(module: AnyEncoderDecoder) -> Array:
        stride = module.source_stride
        # As many frames as the memory stands for, or a few more.
        valid = real_tokens(memory.shape[1] * stride, num_frames).astype(jnp.int32)
        flat = labels.reshape(batch * size, length)
        features = module.written(
            repeated(memory),
            module.begun(target.reshape(batch * size, length)),
            source_segments=repeated(valid),
            target_segments=(flat != IGNORED).astype(jnp.int32),
        )
        nll = cross_entropy(module.logits(features), flat).nll
        return -jnp.sum(nll, axis=-1).reshape(batch, size)

    return nn.apply(run, model)({"params": params})


def _by_attention(
    model: AnyEncoderDecoder,
    params: Params,
    frames: Float[Array, "B T M"],
    num_frames: Int[Array, "B"],
    how: Recognition,
) -> list[Found]:
    """The best texts of a beam search with the decoder alone."""
    settings = Settings(
        end=how.end,
        num_tokens=how.num_tokens,
        max_length=how.max_length,
        beam_size=how.size,
        alpha=how.length_penalty,
        num_return=1,
        begin=model.begin_token(),
        unwritten=model.unwritten_tokens(),
        search=how.search,
        transcript=how.transcript,
    )
    rows = len(num_frames)
    tokens = np.tile(np.array([settings.first, *how.prompt], np.int32), (rows, 1))
    prompts = Prompts(tokens, np.full(rows, tokens.shape[1], np.int32))
    limits = jnp.full(rows, how.max_length)
    found = jax.device_get(
        beam_search(model, params, frames, num_frames, limits, settings, prompts)
    )
    results = []
    for row in range(len(num_frames)):
        ids = found.tokens[row, 0, : found.lengths[row, 0]]
        ids = ids[:-1] if len(ids) and ids[-1] == how.end else ids
        score = float(found.scores[row, 0]) if found.lengths[row, 0] else -np.inf
        results.append(Found(ids, score))
    return results
