"""Losses that several tasks share."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer.limits import CountOrZero
from transformer.nn.mixture import LOSSES
from transformer.ops.losses import (
    IGNORED,
    TokenLosses,
    cross_entropy,
    linear_cross_entropy,
    summed,
)
from transformer.ops.platforms import platform
from transformer.sharding import gathered, parts
from transformer.tasks.parts.models import (
    CapsOutputs,
    HasOutputLayer,
    SequenceToSequence,
    TextDecoder,
)
from transformer.tasks.parts.protocol import Losses
from transformer.traced import Number, is_zero
from transformer.types import Batch, Facts, Params

# A GPU multiplies matrices in tiles of so many columns. A step of GPT-2 took an H100 101 ms with
# 50,257 columns and three products in attention, and 76 ms with 50,304 and one (LOG.md).
_TILE = 128


@dataclasses.dataclass(frozen=True)
class LogitChunks:
    """The part of tasks whose loss is over a vocabulary.

    Attributes:
        vocab_chunk: saves memory: scores so many positions at once that they have no more logits
            than all positions have of this many tokens; 0 scores all at once.
    """

    vocab_chunk: CountOrZero = 0


def vocabulary_losses(
    module: HasOutputLayer,
    features: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    chunk: int,
    **terms: Number,
) -> TokenLosses:
    """The summed cross-entropy of a model's output layer, of all positions or in chunks of them.

    Args:
        module: a bound model.
        features: the input of the output layer.
        labels: token ids, or `IGNORED`.
        chunk: at most as many logits are held at once as this many tokens of the vocabulary have
            at all positions; 0 holds all.
        **terms: `label_smoothing` and `z_loss`; see `ops.losses.cross_entropy`.
    """
    multiple = math.lcm(module.compute.vocab_multiple, _TILE if platform() == "gpu" else 1)
    if not chunk and multiple == 1:
        return summed(cross_entropy(module.logits(features), labels, **terms))
    (kernel, bias), table = module.output_layer(), module.output_table()
    vocab_size, missing = kernel.shape[1], (0, -kernel.shape[1] % multiple)
    axes, pads = ("embed", "vocab"), ((0, 0), missing)
    if table is not None:
        kernel, axes, pads = table, ("vocab", "embed"), (missing, (0, 0))
    return linear_cross_entropy(
        features,
        gathered(jnp.pad(kernel.astype(features.dtype), pads), *axes),
        labels,
        bias,
        is_table=table is not None,
        vocab_size=vocab_size,
        num_chunks=-(-vocab_size // (chunk or vocab_size)),
        num_shards=parts("batch"),
        num_position_shards=parts("sequence"),
        logit_cap=module.output_cap() if isinstance(module, CapsOutputs) else None,
        **terms,
    )


def next_token_losses(
    model: TextDecoder,
    params: Params,
    batch: Batch,
    rngs: dict[str, jax.Array],
    vocab_chunk: int = 0,
    valid: Bool[Array, "B T"] | None = None,
    **terms: Number,
) -> Losses:
    """Cross-entropy of every next token, plus the model's auxiliary losses (routers).

    Args:
        model: the decoder.
        params: its parameters.
        batch: `tokens` and `labels`, both `[B, T]`.
        rngs: for dropout; empty for none.
        vocab_chunk: see `vocabulary_losses`.
        valid: which tokens are no padding; None means those with a label.
        **terms: see `vocabulary_losses`.
    """
    labels = batch["labels"]
    read = labels != IGNORED if valid is None else valid

    def score(module: TextDecoder) -> TokenLosses:
        features, _ = module.features(batch["tokens"], valid=read)
        return vocabulary_losses(module, features, labels, vocab_chunk, **terms)

    scores, collected = model.apply({"params": params}, method=score, rngs=rngs, mutable=[LOSSES])
    objective, metrics = scores.objective, {"loss": scores.nll, "accuracy": scores.correct}
    for name, value in auxiliary_losses(collected).items():
        metrics[name] = value * scores.weight
        objective += model.loss_scales()[name] * metrics[name]
    return Losses(objective, scores.weight, metrics)


def auxiliary_losses(collected: Facts) -> dict[str, Float[Array, ""]]:
    """The losses in the collection `losses`, by name, each a mean over layers.

    Args:
        collected: the collections that applying a model changed.
    """
    found: dict[str, list[Array]] = {}
    for path, value in jax.tree_util.tree_leaves_with_path(collected.get(LOSSES, {})):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        found.setdefault(names[-1], []).append(value)
    # Scanned layers share one leaf; others have one each.
    return {name: jnp.mean(jnp.stack(values)) for name, values in found.items()}


def sequence_losses(
    model: SequenceToSequence,
    params: Params,
    batch: Batch,
    rngs: dict[str, jax.Array],
    vocab_chunk: int,
    label_smoothing: Number = 0.0,
) -> Losses:
    """Cross-entropy of every token of an encoder-decoder's target.

    Args:
        model: the encoder-decoder.
        params: its parameters.
        batch: `source`, `target`, `labels`, and segments and positions if pairs share rows.
        rngs: for dropout; empty for none.
        vocab_chunk: see `vocabulary_losses`.
        label_smoothing: see `ops.losses.cross_entropy`; `loss` in the metrics is without smoothing.
    """
    layout = {name: batch[name] for name in batch if name.endswith(("_segments", "_positions"))}

    def score(module: SequenceToSequence) -> TokenLosses:
        target = module.begun(batch["target"], batch.get("target_segments"))
        features = module.features(batch["source"], target, **layout)
        terms = {"label_smoothing": label_smoothing}
        return vocabulary_losses(module, features, batch["labels"], vocab_chunk, **terms)

    # Inside the module's scope, features and output layer are two calls on one bound model, so
    # logits need never exist for the whole vocabulary at once.
    scores = model.apply({"params": params}, method=score, rngs=rngs)
    metrics = {"loss": scores.nll, "accuracy": scores.correct}
    if not is_zero(label_smoothing):
        metrics["smoothed_loss"] = scores.objective
    return Losses(scores.objective, scores.weight, metrics)
