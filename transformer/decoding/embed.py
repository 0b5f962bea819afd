"""Sentence embeddings: one vector for a text, from an encoder."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.data.text.embeddings import POOLINGS, Embedding
from transformer.data.text.rows import lay_out_texts
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError
from transformer.nn.heads import TextEncoder
from transformer.ops.masks import real_tokens
from transformer.types import Params

# Lower than any state: masks tokens that do not count in a maximum.
_LOWEST = -1e9


def embed(
    model: TextEncoder,
    params: Params,
    tokenizer: EncoderTokenizer,
    texts: Sequence[str],
    how: Embedding,
    *,
    prompt: str = "",
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda count: None,
    on_cut: Callable[[int], None] = lambda count: None,
) -> Float[np.ndarray, "n D"]:
    """One vector for each text (Reimers and Gurevych 2019, section 3).

    Args:
        model: an encoder.
        params: its parameters.
        tokenizer: the encoder's tokenizer.
        texts: n texts, without white space around them; long ones are cut at the end.
        how: how to pool; D grows with the number of poolings.
        prompt: put in front of every text; see `Embedding.prompt`.
        batch_size: texts computed at once.
        on_progress: called with the number of texts that are done.
        on_cut: called with the number of texts that were cut.

    Raises:
        ConfigError: if there is no such pooling.
    """
    for name in how.pooling:
        if name not in POOLINGS:
            raise ConfigError(f"the pooling is {name!r}: choose from {', '.join(POOLINGS)}.")
    max_length = min(how.max_length or model.context, model.context)
    # The prompt alone is the last text, to find its length.
    whole = [(prompt + text).strip() for text in (*texts, "")]
    whole = [text.lower() for text in whole] if how.lowercase else whole
    rows = lay_out_texts(tokenizer, whole, None, max_length)
    on_cut(int(rows.cut[:-1].sum()))
    skipped = int(rows.lengths[-1]) - 1 if prompt and not how.include_prompt else 0
    batch_size = rounded_up(len(texts), batch_size, least=1)
    vectors = np.zeros((len(texts), len(how.pooling) * model.width), np.float32)
    # Texts of similar length share a batch.
    order = np.argsort(rows.lengths[:-1], kind="stable")
    for first in range(0, len(order), batch_size):
        members = order[first : first + batch_size]
        length = rounded_up(int(rows.lengths[members].max()), max_length)
        tokens = np.full((batch_size, length), tokenizer.pad, np.int32)
        lengths = np.ones(batch_size, np.int32)
        tokens[: len(members)] = rows.tokens[members, :length]
        lengths[: len(members)] = rows.lengths[members]
        pooled = _pooled(
            model, how.pooling, how.normalize, params, tokens, lengths, np.int32(skipped)
        )
        vectors[members] = np.asarray(pooled)[: len(members)]
        on_progress(first + len(members))
    return vectors


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pooled(
    model: TextEncoder,
    names: tuple[str, ...],
    normalize: bool,
    params: Params,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    skipped: Int[Array, ""],
) -> Float[Array, "B V"]:
    features = model.apply({"params": params}, tokens, None, lengths).astype(jnp.float32)
    real = real_tokens(tokens.shape[1], lengths) & (jnp.arange(tokens.shape[1]) >= skipped)
    return _vectors(features, real, names, normalize)


def pooled_states(
    states: Float[np.ndarray, "T D"], how: Embedding, num_skipped: int = 0
) -> Float[np.ndarray, " V"]:
    """The vector of one text from the states of its tokens.

    Args:
        states: of real tokens.
        how: how to pool.
        num_skipped: how many of the first tokens are not pooled.
    """
    real = jnp.arange(len(states))[None] >= num_skipped
    return np.asarray(_vectors(jnp.asarray(states)[None], real, how.pooling, how.normalize)[0])


def _vectors(
    features: Float[Array, "B T D"],
    real: Bool[Array, "B T"],
    names: tuple[str, ...],
    normalize: bool,
) -> Float[Array, "B V"]:
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
    positions = jnp.max(jnp.where(real, jnp.arange(real.shape[1]), 0), axis=1)
    found = jnp.take_along_axis(features, positions[:, None, None], axis=1)[:, 0]
    return found * jnp.any(real, axis=1)[:, None]


def _numbers(real: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """The number of each token that counts, from 1; 0 for the others."""
    return real * jnp.arange(1.0, real.shape[1] + 1.0)


_POOL: dict[str, Callable[[Array, Array], Array]] = {
    "cls": lambda features, real: features[:, 0],
    "max": lambda features, real: jnp.max(jnp.where(real[..., None], features, _LOWEST), axis=1),
    "mean": lambda features, real: _weighted(features, real.astype(jnp.float32)),
    "mean_sqrt_len_tokens": lambda features, real: _weighted(
        features, real.astype(jnp.float32), 0.5
    ),
    "weightedmean": lambda features, real: _weighted(features, _numbers(real)),
    "lasttoken": _last,
}
