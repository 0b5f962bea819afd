"""Llama, Mistral, Qwen2 and Qwen3 in the layout of the library `transformers`."""

import re
from collections.abc import Set
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from transformer.errors import DataError
from transformer.interop.layout import Entry, Shape, entries
from transformer.interop.published import (
    Family,
    Head,
    parameter_shapes,
    theirs_of,
    writes_text,
)
from transformer.interop.side_files import SideFile
from transformer.models.llama import Llama

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_KINDS = ("llama", "mistral", "qwen2", "qwen3")
_ATTENTION = {
    "blocks/layer_{}/attention/query": "model.layers.{}.self_attn.q_proj",
    "blocks/layer_{}/attention/key": "model.layers.{}.self_attn.k_proj",
    "blocks/layer_{}/attention/value": "model.layers.{}.self_attn.v_proj",
    "blocks/layer_{}/attention/output": "model.layers.{}.self_attn.o_proj",
    "blocks/layer_{}/attention/query_norm": "model.layers.{}.self_attn.q_norm",
    "blocks/layer_{}/attention/key_norm": "model.layers.{}.self_attn.k_norm",
    "blocks/layer_{}/attention_norm": "model.layers.{}.input_layernorm",
}
FEED_FORWARD = {
    "blocks/layer_{}/feed_forward/gate": "model.layers.{}.mlp.gate_proj",
    "blocks/layer_{}/feed_forward/up": "model.layers.{}.mlp.up_proj",
    "blocks/layer_{}/feed_forward/down": "model.layers.{}.mlp.down_proj",
}
AROUND = {
    **_ATTENTION,
    "blocks/layer_{}/feed_forward_norm": "model.layers.{}.post_attention_layernorm",
    "token_embedding": "model.embed_tokens",
    "final_norm": "model.norm",
    "output": "lm_head",
}
# What old files hold beside the weights.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$")


def canonical(name: str) -> str | None:
    """The name of an array with the prefix that models without an output layer leave out."""
    if _COMPUTED.search(name):
        return None
    return f"model.{name}" if name.startswith(("layers.", "embed_tokens.", "norm.")) else name


def tied_output(model: Any) -> dict[str, str]:
    """The output layer that some files hold beside the table that it is."""
    return {"lm_head.weight": "model.embed_tokens.weight"} if model.tie_embeddings else {}


def decoder_shapes(model: Any) -> dict[str, Shape]:
    """The shapes of all parameters of a decoder."""
    return parameter_shapes(model, _called, jnp.zeros((1, 2), jnp.int32))


def _called(model: Any, tokens: Any) -> Any:
    """Calls whatever has parameters."""
    return model(tokens)


def _entries(model: Any) -> list[Entry]:
    return entries(decoder_shapes(model), AROUND | FEED_FORWARD)


# -------------------------------------------------------------------------- theirs to ours


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> dict[str, Any]:
    """Fields of `config.model`, refusing what our model does not do."""
    kind = config["model_type"]
    if config.get("mlp_bias") or (kind != "qwen2" and config.get("attention_bias")):
        raise DataError(f"{where} has biases where this model has none here.")
    if kind != "mistral" and config.get("use_sliding_window"):
        raise DataError(
            f"{where} has a sliding window in some layers only: that is not known here."
        )
    return {
        **decoder_fields(config, where),
        "activation": activation(config.get("hidden_act", "silu"), where),
        "window": integer(config.get("sliding_window")) if kind == "mistral" else None,
        "qkv_bias": kind == "qwen2",
        "head_norm": kind == "qwen3",
        "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
        **rotary_fields(config, where),
    }


def decoder_fields(config: SideFile, where: Path) -> dict[str, Any]:
    """The sizes that all of these decoders have."""
    return {
        "vocab_size": int(config["vocab_size"]),
        "num_layers": int(config["num_hidden_layers"]),
        "num_heads": int(config["num_attention_heads"]),
        "num_kv_heads": integer(config.get("num_key_value_heads")),
        "head_dim": integer(config.get("head_dim")),
        "width": int(config["hidden_size"]),
        "feed_forward_width": int(config["intermediate_size"]),
        "context": int(config["max_position_embeddings"]),
        "norm_epsilon": float(config.get("rms_norm_eps", 1e-6)),
    }


def activation(name: Any, where: Path) -> str:
    """Our name of an activation.

    Raises:
        DataError: if it is not known here.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise DataError(f"{where} has the activation {name!r}: it is not known here.")
    return ACTIVATIONS[name]


def integer(value: Any) -> int | None:
    """A number that may be missing."""
    return None if value is None else int(value)


def rotary_fields(config: SideFile, where: Path) -> dict[str, Any]:
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


# -------------------------------------------------------------------------- ours to theirs


def _config(model: Llama, head: Head, paths: Set[str]) -> dict[str, Any]:
    """`config.json` of the kind that has what the model has."""
    if model.head_norm:
        kind, name = "qwen3", "Qwen3ForCausalLM"
    elif model.qkv_bias:
        kind, name = "qwen2", "Qwen2ForCausalLM"
    elif model.window is not None:
        kind, name = "mistral", "MistralForCausalLM"
    else:
        kind, name = "llama", "LlamaForCausalLM"
    only = {"qwen3": model.qkv_bias or model.window, "qwen2": model.window}
    if only.get(kind):
        raise DataError(
            f"no published model has all of config.model.head_norm, config.model.qkv_bias and "
            f"config.model.window: {kind} was the nearest."
        )
    return {
        "architectures": [name],
        "model_type": kind,
        **decoder_config(model),
        "hidden_act": theirs_of(ACTIVATIONS, model.activation),
        "rope_parameters": rope_parameters(model),
        "rope_theta": model.rope_base,
        **({"sliding_window": model.window} if kind == "mistral" else {}),
    }


def decoder_config(model: Any) -> dict[str, Any]:
    """What `decoder_fields` reads."""
    num_kv_heads, head_dim = model.cache_heads()
    return {
        "vocab_size": model.vocab_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "hidden_size": model.width,
        "intermediate_size": model.hidden_width(),
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def rope_parameters(model: Llama) -> dict[str, Any]:
    """What `rotary_fields` reads."""
    if model.rope_factor is None:
        return {"rope_type": "default", "rope_theta": model.rope_base}
    return {
        "rope_type": "llama3",
        "rope_theta": model.rope_base,
        "factor": model.rope_factor,
        "low_freq_factor": model.rope_low_frequency,
        "high_freq_factor": model.rope_high_frequency,
        "original_max_position_embeddings": model.rope_old_context,
    }


LLAMA = Family(
    kinds=_KINDS,
    name="llama",
    model=Llama,
    fields=_fields,
    config=_config,
    entries=_entries,
    head=writes_text,
    canonical=canonical,
    copies=tied_output,
)
