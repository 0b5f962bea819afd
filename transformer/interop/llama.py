"""Llama, Mistral, Qwen2 and Qwen3 in the layout of the library `transformers`."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from transformer.errors import ConfigError, DataError
from transformer.interop.published import (
    Published,
    converted,
    parameter_shapes,
    read_json,
    require_complete,
)
from transformer.interop.safetensors_files import read_safetensors
from transformer.models.llama import Llama

KINDS = ("llama", "mistral", "qwen2", "qwen3")
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_MODULES = {
    "self_attn.q_proj": "attention/query",
    "self_attn.k_proj": "attention/key",
    "self_attn.v_proj": "attention/value",
    "self_attn.o_proj": "attention/output",
    "self_attn.q_norm": "attention/query_norm",
    "self_attn.k_norm": "attention/key_norm",
    "mlp.gate_proj": "feed_forward/gate",
    "mlp.up_proj": "feed_forward/up",
    "mlp.down_proj": "feed_forward/down",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
}
_SINGLE = {
    "model.embed_tokens.weight": "token_embedding/embedding",
    "model.norm.weight": "final_norm/scale",
    "lm_head.weight": "output/kernel",
}
# What old files hold beside the weights.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$")


def read_llama(folder: str | Path) -> Published:
    """Reads a checkpoint; nothing in it is run.

    Args:
        folder: with `config.json` and safetensors, in one file or several.

    Raises:
        DataError: if a file is missing or damaged, or the model is not one that we can build.
    """
    folder = Path(folder)
    model = _model(read_json(folder / "config.json"), folder / "config.json")
    found: dict[str, tuple[str, np.ndarray]] = {}
    unused = []
    for name, array in read_safetensors(folder).items():
        path = _path(name)
        if path is None:
            unused += [] if _COMPUTED.search(name) else [name]
        elif not (path.startswith("output/") and model["tie_embeddings"]):
            found[path] = name, array
    ours = Llama(**model)
    try:
        ours.check()
    except ConfigError as error:
        raise DataError(f"{folder / 'config.json'} describes no model: {error}") from None
    shapes = parameter_shapes(ours, _called, jnp.zeros((1, 2), jnp.int32))
    unused += [name for path, (name, _) in found.items() if path not in shapes]
    require_complete(found, shapes, (), folder)
    params = {path: converted(path, *found[path], shape, folder) for path, shape in shapes.items()}
    return Published(model, "language_modeling", (), params, unused, {})


def _called(model: Llama, tokens: Any) -> Any:
    """Calls whatever has parameters."""
    return model(tokens)


def _path(name: str) -> str | None:
    """Our path of an array; None if our model has no such thing."""
    if name in _SINGLE:
        return _SINGLE[name]
    parts = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if parts is None or parts[2] not in _MODULES:
        return None
    module = _MODULES[parts[2]]
    kind = "bias" if parts[3] == "bias" else "scale" if module.endswith("_norm") else "kernel"
    return f"blocks/layer_{parts[1]}/{module}/{kind}"


def _model(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """Fields of `config.model`, refusing what our model does not do."""
    kind = config.get("model_type")
    if kind not in KINDS:
        raise DataError(f"{where} is of a model {kind!r}: expected one of {', '.join(KINDS)}.")
    activation = config.get("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise DataError(f"{where} has the activation {activation!r}: it is not known here.")
    if config.get("mlp_bias") or (kind != "qwen2" and config.get("attention_bias")):
        raise DataError(f"{where} has biases where this model has none here.")
    if kind != "mistral" and config.get("use_sliding_window"):
        raise DataError(
            f"{where} has a sliding window in some layers only: that is not known here."
        )
    try:
        return {
            "vocab_size": int(config["vocab_size"]),
            "num_layers": int(config["num_hidden_layers"]),
            "num_heads": int(config["num_attention_heads"]),
            "num_kv_heads": _integer(config.get("num_key_value_heads")),
            "head_dim": _integer(config.get("head_dim")),
            "width": int(config["hidden_size"]),
            "feed_forward_width": int(config["intermediate_size"]),
            "context": int(config["max_position_embeddings"]),
            "activation": _ACTIVATIONS[activation],
            "norm_epsilon": float(config.get("rms_norm_eps", 1e-6)),
            "window": _integer(config.get("sliding_window")) if kind == "mistral" else None,
            "qkv_bias": kind == "qwen2",
            "head_norm": kind == "qwen3",
            "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
            **_rotary(config, where),
        }
    except KeyError as error:
        raise DataError(f"{where} is incomplete: there is no {error.args[0]}.") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} holds what is no number: {error}.") from None


def _rotary(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """Fields of rotary positions, which newer files keep in one object and older ones in two."""
    values = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = values.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = values.get("rope_type", values.get("type", "default"))
    found: dict[str, Any] = {"rope_base": float(base)}
    if kind == "llama3":
        found |= {
            "rope_factor": float(values["factor"]),
            "rope_low_frequency": float(values["low_freq_factor"]),
            "rope_high_frequency": float(values["high_freq_factor"]),
            "rope_old_context": int(values["original_max_position_embeddings"]),
        }
    elif kind != "default":
        raise DataError(
            f"{where} scales rotary positions by {kind!r}: only llama3's is known here."
        )
    return found


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)
