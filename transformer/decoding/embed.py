"""Sentence embeddings: one vector for a text, from an encoder."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.data.text.embeddings import POOLINGS
from transformer.data.text.rows import lay_out_texts
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.errors import ConfigError
from transformer.ops.masks import real_tokens

# Rows are as long as their longest text needs, rounded to one of few lengths, each compiled once.
_SHORTEST = 16
# Lower than any state: masks tokens that do not count in a maximum.
_LOWEST = -1e9


def embed(
    model: Any,
    params: Any,
    tokenizer: EncoderTokenizer,
    texts: Sequence[str],
    *,
    pooling: str | Sequence[str] = "mean",
    normalize: bool = True,
    max_length: int,
    lowercase: bool = False,
    prompt: str = "",
    include_prompt: bool = True,
    batch_size: int = 32,
    on_progress: Callable[[int], None] | None = None,
    on_cut: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "n D"]:
    """One vector for each text (Reimers and Gurevych 2019, section 3).

    Args:
        model: an encoder.
        params: its parameters.
        tokenizer: the encoder's tokenizer.
        texts: n texts, without white space around them; long ones are cut at the end.
        pooling: how to pool the states of all tokens, start and separator included: `mean`;
            `mean_sqrt_len_tokens`, the sum divided by the root of their number; `weightedmean`, the
            mean weighted by position; `max`, the largest number in each dimension; `cls`, the state
            of the start token; or `lasttoken`, the state of the last token. The vectors of several
            kinds are concatenated, so D grows.
        normalize: whether vectors are scaled to length 1.
        max_length: the most tokens of a text.
        lowercase: whether texts are lowercased before they are tokenized.
        prompt: put in front of every text.
        include_prompt: whether the prompt, and the start before it, are pooled, too.
        batch_size: texts computed at once.
        on_progress: called with the number of texts that are done.
        on_cut: called with the number of texts that were cut.

    Raises:
        ConfigError: if there is no such pooling.
    """
    names = (pooling,) if isinstance(pooling, str) else tuple(pooling)
    for name in names:
        if name not in POOLINGS:
            raise ConfigError(f"the pooling is {name!r}: choose from {', '.join(POOLINGS)}.")
    # The prompt alone is the last text, to find its length.
    whole = [(prompt + text).strip() for text in (*texts, "")]
    rows = lay_out_texts(
        tokenizer, [text.lower() if lowercase else text for text in whole], None, max_length
    )
    if on_cut is not None:
        on_cut(int(rows.cut[:-1].sum()))
    skipped = int(rows.lengths[-1]) - 1 if prompt and not include_prompt else 0
    # Not more rows than texts.
    batch_size = min(batch_size, 1 << max(0, len(texts) - 1).bit_length())
    vectors = np.zeros((len(texts), len(names) * model.width), np.float32)
    # Texts of similar length share a batch.
    order = np.argsort(rows.lengths[:-1], kind="stable")
    for first in range(0, len(order), batch_size):
        members = order[first : first + batch_size]
        length = row_length(int(rows.lengths[members].max()), max_length)
        tokens = np.full((batch_size, length), tokenizer.pad, np.int32)
        lengths = np.ones(batch_size, np.int32)
        tokens[: len(members)] = rows.tokens[members, :length]
        lengths[: len(members)] = rows.lengths[members]
        found = _pooled(model, names, normalize, params, tokens, lengths, np.int32(skipped))
        vectors[members] = np.asarray(found)[: len(members)]
        if on_progress is not None:
            on_progress(first + len(members))
    return vectors


def row_length(needed: int, most: int, *, least: int = _SHORTEST) -> int:
    """The next power of two, between `least` and `most`."""
    length = least
    while length < needed:
        length *= 2
    return min(length, most)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pooled(
    model: Any,
    names: tuple[str, ...],
    normalize: bool,
    params: Any,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    skipped: Int[Array, ""],
) -> Float[Array, "B D"]:
    features = model.apply({"params": params}, tokens, None, lengths).astype(jnp.float32)
    real = real_tokens(tokens.shape[1], lengths) & (jnp.arange(tokens.shape[1]) >= skipped)
    vectors = jnp.concatenate([_POOL[name](features, real) for name in names], axis=-1)
    if not normalize:
        return vectors
    norms = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.maximum(norms, 1e-12)


def _weighted(
    features: Float[Array, "B T D"], weights: Float[Array, "B T"], power: float = 1.0
) -> Float[Array, "B D"]:
    """The weighted sum of states, divided by a power of the sum of weights."""
    total = jnp.sum(features * weights[..., None], axis=1)
    return total / jnp.maximum(jnp.sum(weights, axis=1)[:, None], 1e-9) ** power


def _last(features: Float[Array, "B T D"], real: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """The state of the last token that counts; 0 if none does."""
    places = jnp.max(jnp.where(real, jnp.arange(real.shape[1]), 0), axis=1)
    found = jnp.take_along_axis(features, places[:, None, None], axis=1)[:, 0]
    return found * jnp.any(real, axis=1)[:, None]


def _places(real: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """The number of each token that counts, from 1; 0 for the others."""
    return real * jnp.arange(1.0, real.shape[1] + 1.0)


_POOL: dict[str, Callable[[Array, Array], Array]] = {
    "cls": lambda features, real: features[:, 0],
    "max": lambda features, real: jnp.max(jnp.where(real[..., None], features, _LOWEST), axis=1),
    "mean": lambda features, real: _weighted(features, real.astype(jnp.float32)),
    "mean_sqrt_len_tokens": lambda features, real: _weighted(
        features, real.astype(jnp.float32), 0.5
    ),
    "weightedmean": lambda features, real: _weighted(features, _places(real)),
    "lasttoken": _last,
}
