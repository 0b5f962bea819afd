"""Gemma 2 and 3 in the layout of the library `transformers`."""

from collections.abc import Set
from pathlib import Path
from typing import Any

from transformer.errors import ConfigError, DataError
from transformer.interop.layout import Entry, Shape, entries
from transformer.interop.llama import (
    AROUND,
    FEED_FORWARD,
    canonical,
    decoder_config,
    decoder_fields,
    decoder_shapes,
    tied_output,
)
from transformer.interop.published import Family, Head, writes_text
from transformer.interop.side_files import SideFile
from transformer.models.gemma import Gemma

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_NORMS = {
    "blocks/layer_{}/attention_output_norm": "model.layers.{}.post_attention_layernorm",
    "blocks/layer_{}/feed_forward_norm": "model.layers.{}.pre_feedforward_layernorm",
    "blocks/layer_{}/feed_forward_output_norm": "model.layers.{}.post_feedforward_layernorm",
}
# Where older files do not say which layers are global.
_GLOBAL_EVERY = {"gemma2": 2, "gemma3_text": 6}


def _entries(model: Gemma) -> list[Entry]:
    return entries(decoder_shapes(model), AROUND | FEED_FORWARD | _NORMS)


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> dict[str, Any]:
    """Fields of `config.model`, refusing what our model does not do."""
    kind = config["model_type"]
    fields = decoder_fields(config, where)
    activation = config.get("hidden_activation") or "gelu_pytorch_tanh"
    if activation != "gelu_pytorch_tanh":
        raise DataError(f"{where} has the activation {activation!r}: Gemma's is GELU.")
    if config.get("attention_bias") or config.get("use_bidirectional_attention"):
        raise DataError(f"{where} has biases, or looks ahead: neither is known here.")
    if not config.get("tie_word_embeddings", True):
        raise DataError(f"{where} has an output layer of its own: only tied ones are known here.")
    every = _global_every(config, fields["num_layers"], where)
    rotations = _rotations(config, kind, where)
    return {
        **fields,
        "window": int(config["sliding_window"]),
        "global_every": every,
        **rotations,
        "query_scale": int(config["query_pre_attn_scalar"]),
        "head_norm": kind == "gemma3_text",
        "attention_cap": _number(config.get("attn_logit_softcapping")),
        "logit_cap": _number(config.get("final_logit_softcapping")),
    }


def _global_every(config: SideFile, num_layers: int, where: Path) -> int:
    """Every which layer sees everything."""
    every = config.get("sliding_window_pattern", config.get("_sliding_window_pattern"))
    every = int(every or _GLOBAL_EVERY[config["model_type"]])
    kinds = config.get("layer_types")
    if kinds is None:
        return every
    if _GLOBAL in kinds:
        every = kinds.index(_GLOBAL) + 1
    elif every <= num_layers:
        every = num_layers + 1
    if list(kinds) != _layer_types(num_layers, every):
        raise DataError(f"{where} has layers in an order that is not known here: {kinds}.")
    return every


def _layer_types(num_layers: int, every: int) -> list[str]:
    return [_GLOBAL if layer % every == 0 else _LOCAL for layer in range(1, num_layers + 1)]


def _rotations(config: SideFile, kind: str, where: Path) -> dict[str, Any]:
    """Rotary positions of global and local layers, which files of several ages keep elsewhere."""
    values = config.get("rope_parameters") or {}
    far = values.get(_GLOBAL, values if "rope_theta" in values else {})
    near = values.get(_LOCAL, {})
    scaled = far or config.get("rope_scaling") or {}
    usual = 1_000_000.0 if kind == "gemma3_text" else 10_000.0
    base = float(far.get("rope_theta", config.get("rope_theta", usual)))
    local_base = base
    if kind == "gemma3_text":
        local_base = near.get("rope_theta", config.get("rope_local_base_freq", 10_000.0))
    how = scaled.get("rope_type", scaled.get("type", "default"))
    if how not in ("default", "linear") or near.get("rope_type", "default") != "default":
        raise DataError(f"{where} scales rotary positions by {how!r}: only 'linear' is known here.")
    factor = float(scaled["factor"]) if how == "linear" else None
    return {"rope_base": base, "rope_factor": factor, "local_rope_base": float(local_base)}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _config(model: Gemma, head: Head, paths: Set[str]) -> dict[str, Any]:
    kind = "gemma3_text" if model.head_norm else "gemma2"
    if kind == "gemma2" and (model.rope_base != model.local_rope_base or model.rope_factor):
        raise ConfigError(
            "Gemma 2 turns alike in all layers: config.model.local_rope_base must be "
            "config.model.rope_base and config.model.rope_factor None, or config.model.head_norm "
            "True as in Gemma 3."
        )
    far = {"rope_type": "default", "rope_theta": model.rope_base}
    if model.rope_factor is not None:
        far |= {"rope_type": "linear", "factor": model.rope_factor}
    near = {"rope_type": "default", "rope_theta": model.local_rope_base}
    return {
        "architectures": ["Gemma3ForCausalLM" if kind == "gemma3_text" else "Gemma2ForCausalLM"],
        "model_type": kind,
        **decoder_config(model),
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": model.window,
        "layer_types": _layer_types(model.num_layers, model.global_every),
        "rope_parameters": {_GLOBAL: far, _LOCAL: near} if kind == "gemma3_text" else far,
        "query_pre_attn_scalar": model.query_scale or model.cache_heads()[1],
        "attn_logit_softcapping": model.attention_cap,
        "final_logit_softcapping": model.logit_cap,
    }


GEMMA = Family(
    kinds=("gemma2", "gemma3_text"),
    name="gemma",
    model=Gemma,
    fields=_fields,
    config=_config,
    entries=_entries,
    head=writes_text,
    canonical=canonical,
    copies=tied_output,
)
