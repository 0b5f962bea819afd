"""What the stream of a layer would predict, and what each part adds to a prediction."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError
from transformer.explaining.traces import Trace
from transformer.explaining.tracing import model_of
from transformer.nn.decoder import DecoderOnly
from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.nn.heads import TextEncoder
from transformer.nn.layouts import layer_name, unstacked
from transformer.nn.norms import LayerNorm, RMSNorm
from transformer.types import Params


class Lens(NamedTuple):
    """The most probable tokens after each layer.

    Attributes:
        ids: `[L, T, k]` int32, the best first.
        probabilities: `[L, T, k]` float32.
    """

    ids: Int[np.ndarray, "L T k"]
    probabilities: Float[np.ndarray, "L T k"]


def has_lens(trace: Trace) -> bool:
    """Whether the outputs are tokens, which `logit_lens` needs."""
    return trace.reading.output in ("next_token", "masked_tokens")


def logit_lens(trace: Trace, k: int = 5) -> Lens:
    """The tokens that the output layer reads off the stream after each layer.

    nostalgebraist 2020, "interpreting GPT: the logit lens": the last normalisation and the output
    layer are applied to `residual_after` of every layer of the last stack. After the last layer
    these are the model's own predictions.

    Args:
        trace: of a model that predicts tokens.
        k: how many tokens are kept for each layer and position.

    Raises:
        ConfigError: if the model does not predict tokens.
    """
    _require_tokens(trace, "the logit lens")
    model = model_of(trace.run, trace.reading)
    k = min(k, trace.outputs.shape[-1])
    count = len(trace.stacks[-1].tokens)
    found = [
        _best(model, k, trace.run.params, _filled_up(layer["residual_after"]))
        for layer in trace.stacks[-1].layers
    ]
    ids, probabilities = (np.stack([np.asarray(pair[i])[:count] for pair in found]) for i in (0, 1))
    return Lens(ids, probabilities)


def lens_logits(trace: Trace, layer: int, name: str = "residual_after") -> Float[np.ndarray, "T V"]:
    """The scores of all tokens that the output layer reads off one layer's stream.

    Raises:
        ConfigError: if the model does not predict tokens.
    """
    _require_tokens(trace, "the logit lens")
    model = model_of(trace.run, trace.reading)
    return np.asarray(_logits(model, trace.run.params, trace[name, layer]))


def _require_tokens(trace: Trace, what: str) -> None:
    if not has_lens(trace):
        raise ConfigError(
            f"{what} needs a model that predicts tokens, and {trace.run.workdir} was trained for "
            f"{trace.run.config.task.name}."
        )


def _filled_up(x: Float[np.ndarray, "T D"]) -> Float[np.ndarray, "R D"]:
    """With rows of zeros, so that prompts of a few lengths share one program."""
    return np.pad(x, ((0, rounded_up(len(x)) - len(x)), (0, 0)))


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: nn.Module, params: Params, x: Float[Array, "T D"]) -> Float[Array, "T V"]:
    def score(module: Any, x: Array) -> Array:
        return module.logits(_finished(module, x.astype(module.compute.dtype)))[0]

    return nn.apply(score, model)({"params": params}, x[None])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _best(model: nn.Module, k: int, params: Params, x: Float[Array, "T D"]) -> tuple[Array, Array]:
    probabilities = jax.nn.softmax(_logits(model, params, x), axis=-1)
    values, ids = jax.lax.top_k(probabilities, k)
    return ids, values


def _finished(module: AnyEncoderDecoder | DecoderOnly | TextEncoder, x: Array) -> Array:
    """The input of the output layer, from the stream after the last layer."""
    if isinstance(module, AnyEncoderDecoder):
        return module.finish_decoder(x)
    if isinstance(module, DecoderOnly):
        return module.final_norm(x)
    return module.of_masked(module.finished(x))


class Contributions(NamedTuple):
    """What each part of a model adds to the score of one token.

    Attributes:
        names: the parts: `embedding`, `layer 0 attention`, `layer 0 feed-forward`, ...; `bias` is
            what the last normalisation and the output layer add by themselves.
        scores: `[parts]`; their sum is the score before a cap.
        heads: `[L, N]`, the parts of the attention's scores by head, without the output's bias;
            None where branches are normalised again.
    """

    names: tuple[str, ...]
    scores: Float[np.ndarray, " parts"]
    heads: Float[np.ndarray, "L N"] | None


def direct_logit_attribution(
    trace: Trace, position: int = -1, token: int | None = None
) -> Contributions:
    """Splits the score of a token into what each part adds to the stream.

    Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits"): the stream is a sum,
    and with the last normalisation's denominator held fixed the output layer is linear in it.

    Args:
        trace: of a decoder whose branches are normalised before they are added (`pre`, `both`).
        position: which token's prediction.
        token: the id of the predicted token; None takes the best one.

    Raises:
        ConfigError: if the model is none of those.
    """
    model = model_of(trace.run, trace.reading)
    if not isinstance(model, DecoderOnly):
        raise ConfigError(
            "direct logit attribution needs a decoder-only model, whose stream is a sum of parts: "
            "other models normalise the stream itself, or end in another head."
        )
    token = int(np.argmax(trace.outputs[position])) if token is None else token
    stack = trace.stacks[-1]
    names, parts = ["embedding"], [stack.layers[0]["residual_before"][position]]
    for number, layer in enumerate(stack.layers):
        for part in ("attention", "feed_forward"):
            names.append(f"layer {number} {part.replace('_', '-')}")
            parts.append(layer[f"{part}_output"][position])
    read = functools.partial(_read, model, trace.run.params, token, sum(parts))
    scores = [float(read(part)) for part in parts]
    total = float(_uncapped(model, trace.run.params, token, sum(parts)))
    heads = _by_head(trace, position, read)
    return Contributions((*names, "bias"), np.array([*scores, total - sum(scores)]), heads)


def _by_head(
    trace: Trace, position: int, read: Callable[[np.ndarray], Array]
) -> Float[np.ndarray, "L N"] | None:
    layers = unstacked(trace.run.params[trace.stacks[-1].path])
    rows = []
    for number, layer in enumerate(trace.stacks[-1].layers):
        params = layers[layer_name(number)]
        if "attention_output_norm" in params or "attention_scale" in params:
            return None
        kernel = np.asarray(params["attention"]["output"]["kernel"], np.float32)
        mixed = layer["attention_mixed"][:, position]
        rows.append([float(read(part)) for part in np.einsum("nh,nhd->nd", mixed, kernel)])
    return np.array(rows)


def _read(
    model: nn.Module, params: Params, token: int, whole: np.ndarray, part: np.ndarray
) -> Float[Array, ""]:
    """What a part of the stream adds to the score of a token, the denominator being the whole's."""

    def score(module: Any) -> Array:
        norm, scale = module.final_norm, module.final_norm.variables["params"]["scale"]
        if isinstance(norm, RMSNorm):
            size = jnp.sqrt(jnp.mean(jnp.square(whole)) + norm.epsilon)
            normed = part / size * (norm.offset + scale)
        elif isinstance(norm, LayerNorm):
            normed = (part - jnp.mean(part)) / jnp.sqrt(jnp.var(whole) + norm.epsilon) * scale
        else:
            raise ConfigError("direct logit attribution knows layer and RMS normalisation only.")
        return normed @ module.output_layer()[0][:, token]

    return nn.apply(score, model)({"params": params})


def _uncapped(model: nn.Module, params: Params, token: int, whole: np.ndarray) -> Float[Array, ""]:
    """The score of a token before a cap."""

    def score(module: Any) -> Array:
        kernel, bias = module.output_layer()
        found = module.final_norm(jnp.asarray(whole)[None])[0] @ kernel[:, token]
        return found if bias is None else found + bias[token]

    return nn.apply(score, model)({"params": params})
