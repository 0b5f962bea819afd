"""Sentence embeddings: what an encoder makes of a text, as one vector."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.data.pieces import EncoderTokenizer
from transformer.data.text_rows import lay_out_texts
from transformer.errors import ConfigError
from transformer.models.bert import real_tokens

POOLINGS = ("mean", "cls")
# Rows are as long as the longest text that they hold needs: one of few lengths, each compiled once.
_SHORTEST = 16


def embed(
    model: Any,
    params: Any,
    tokenizer: EncoderTokenizer,
    texts: Sequence[str],
    *,
    pooling: str = "mean",
    normalize: bool = True,
    max_length: int,
    batch_size: int = 32,
    on_progress: Callable[[int], None] | None = None,
    on_cut: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "n D"]:
    """One vector for each text (Reimers and Gurevych 2019, section 3).

    Args:
        model: an encoder.
        params: its parameters.
        tokenizer: of the encoder.
        texts: n of them; longer ones lose their ends.
        pooling: `mean` of the states of all tokens, start and separator among them, or `cls`, the
            state of the start.
        normalize: to length 1.
        max_length: tokens of a text, at most.
        batch_size: texts at a time.
        on_progress: told how many are done.
        on_cut: told how many texts have lost their ends.

    Raises:
        ConfigError: if there is no such pooling.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"the pooling is {pooling!r}: choose from {', '.join(POOLINGS)}.")
    rows = lay_out_texts(tokenizer, texts, None, max_length)
    if on_cut is not None:
        on_cut(rows.num_cut)
    # No more rows than there are texts for.
    batch_size = min(batch_size, 1 << max(0, len(texts) - 1).bit_length())
    vectors = np.zeros((len(texts), model.width), np.float32)
    # Texts of like length together.
    order = np.argsort(rows.lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        members = order[first : first + batch_size]
        length = _row_length(int(rows.lengths[members].max()), max_length)
        tokens = np.full((batch_size, length), tokenizer.pad, np.int32)
        lengths = np.ones(batch_size, np.int32)
        tokens[: len(members)] = rows.tokens[members, :length]
        lengths[: len(members)] = rows.lengths[members]
        found = _pooled(model, pooling, normalize, params, tokens, lengths)
        vectors[members] = np.asarray(found)[: len(members)]
        if on_progress is not None:
            on_progress(first + len(members))
    return vectors


def _row_length(needed: int, most: int) -> int:
    """The next power of two."""
    length = _SHORTEST
    while length < needed:
        length *= 2
    return min(length, most)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pooled(
    model: Any,
    pooling: str,
    normalize: bool,
    params: Any,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
) -> Float[Array, "B D"]:
    features = model.apply({"params": params}, tokens, None, lengths).astype(jnp.float32)
    if pooling == "cls":
        vectors = features[:, 0]
    else:
        real = real_tokens(tokens, lengths)[..., None]
        vectors = jnp.sum(features * real, axis=1) / jnp.sum(real, axis=1)
    if not normalize:
        return vectors
    norms = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.maximum(norms, 1e-12)
