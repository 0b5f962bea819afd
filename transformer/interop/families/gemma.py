"""Gemma 2 and 3 in the layout of the library `transformers`."""

from collections import ChainMap
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

from transformer.data.reading.json_text import shown
from transformer.errors import ConfigError, DataError
from transformer.interop.activations import activation
from transformer.interop.checked_values import positive, whole, without_fraction
from transformer.interop.decoder_configs import (
    GLOBAL,
    LOCAL,
    decoder_config,
    decoder_fields,
    decoder_shapes,
    rope_parameters,
    rotary_fields,
)
from transformer.interop.decoder_runs import TrainedDecoder, decoder_family, decoder_run
from transformer.interop.families.llama import AROUND, FEED_FORWARD, canonical, tied_output
from transformer.interop.formats.tokenizers import SPACE
from transformer.interop.layout import Entry, Shape, entries
from transformer.interop.side_files import SideFile
from transformer.interop.tokenizers.decoders import BytePairs, DecoderClass, Usual
from transformer.models.gemma import Gemma
from transformer.types import Json

_NORMS = {
    "blocks/{}/attention_output_norm": "model.layers.{}.post_attention_layernorm",
    "blocks/{}/feed_forward_norm": "model.layers.{}.pre_feedforward_layernorm",
    "blocks/{}/feed_forward_output_norm": "model.layers.{}.post_feedforward_layernorm",
}
# Defaults of missing keys.
_SIZES = {
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
_USUAL = {
    "gemma2": {**_SIZES, "vocab_size": 256_000, "max_position_embeddings": 8192},
    "gemma3_text": {**_SIZES, "vocab_size": 262_208, "max_position_embeddings": 131_072},
}
# Defaults for files that do not say which layers are global.
_GLOBAL_EVERY = {"gemma2": 2, "gemma3_text": 6}


def _entries(model: Gemma) -> list[Entry]:
    return entries(decoder_shapes(model), AROUND | FEED_FORWARD | _NORMS)


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    kind = config.text("model_type")
    usual = _USUAL[kind]
    config.usual({"attention_dropout": 0.0, "use_bidirectional_attention": False})
    config.only({"attention_bias": False, "tie_word_embeddings": True})
    if config.flag("use_bidirectional_attention", False):
        raise DataError(f"{where} has use_bidirectional_attention: Gemma looks back only here.")
    if activation(config, "hidden_activation", "gelu_pytorch_tanh") != "gelu_tanh":
        raise DataError(f"{where} has another hidden_activation: Gemma's is gelu_pytorch_tanh.")
    fields = decoder_fields(config, where, usual, shapes)
    every = _global_every(config, fields["num_layers"], where)
    window = config.whole_or_none("sliding_window", 4096)
    if window is None and every != 1:
        raise DataError(f"{where}: sliding_window is null, and there are layers with a window.")
    rotations = _one_rotation(config, where) if kind == "gemma2" else _two_rotations(config, where)
    return {
        **fields,
        "window": 4096 if window is None else window,
        "global_every": every,
        **rotations,
        "query_scale": _query_scale(config),
        "head_norm": kind == "gemma3_text",
        "attention_cap": _attention_cap(config, kind),
        "logit_cap": _cap(config, "final_logit_softcapping", 30.0 if kind == "gemma2" else None),
    }


def _query_scale(config: SideFile) -> int:
    """The number whose square root divides queries; some files write it as a float."""
    found = without_fraction(config.get("query_pre_attn_scalar", 256))
    return whole(config.where, "query_pre_attn_scalar", found)


def _attention_cap(config: SideFile, kind: str) -> float | None:
    """The soft cap of attention logits; Gemma 3 has the key but does not use it."""
    if kind == "gemma2":
        return _cap(config, "attn_logit_softcapping", 50.0)
    config.usual({"attn_logit_softcapping": None})
    return None


def _global_every(config: SideFile, num_layers: int, where: Path) -> int:
    """The period n of global layers: every n-th layer sees everything."""
    kind = config.text("model_type")
    every = _GLOBAL_EVERY[kind]
    kinds = config.texts("layer_types") or None
    if kinds is None:
        if kind == "gemma3_text":
            every = config.whole("sliding_window_pattern", every)
        return every
    said = ("sliding_window_pattern", "_sliding_window_pattern")
    config.irrelevant(dict.fromkeys(said, "layer_types say it"))
    if GLOBAL in kinds:
        every = kinds.index(GLOBAL) + 1
    elif every <= num_layers:
        every = num_layers + 1
    if kinds != _layer_types(num_layers, every):
        raise DataError(
            f"{where} has layer_types in an order that is not known here: {shown(kinds)}."
        )
    return every


def _layer_types(num_layers: int, every: int) -> list[str]:
    return [GLOBAL if layer % every == 0 else LOCAL for layer in range(1, num_layers + 1)]


def _one_rotation(config: SideFile, where: Path) -> Json:
    """Rotary positions of Gemma 2, equal in all layers."""
    found = rotary_fields(config, where, 10_000.0)
    if found.get("rope_old_context") is not None:
        raise DataError(
            f"{where} has the rope_type 'llama3' in rope_scaling or rope_parameters: Gemma's are "
            f"'linear' and 'default'."
        )
    factor = found.get("rope_factor")
    return {
        "rope_base": found["rope_base"],
        "rope_factor": factor,
        "local_rope_base": found["rope_base"],
        "local_rope_factor": factor,
    }


def _two_rotations(config: SideFile, where: Path) -> Json:
    """Rotary positions of Gemma 3's global and local layers.

    As in `transformers`, `rope_scaling` overrides `rope_parameters` of global layers, and top-level
    numbers count only if both have none.
    """
    parts, over = config.inside("rope_parameters"), config.inside("rope_scaling")
    # Their default type, before anything overrides it.
    usual = {} if parts else {"rope_type": "default"}
    # Not copied, because a copy would count as reading all keys.
    layers = cast("Iterable[dict[str, object]]", (over, usual, parts.inside(GLOBAL)))
    base, factor = _rotation(ChainMap(*layers), where)
    local_base, local_factor = _rotation(parts.inside(LOCAL), where)
    if base is None:
        base = config.positive("rope_theta", 1_000_000.0)
    if local_base is None:
        local_base = config.positive("rope_local_base_freq", 10_000.0)
    known = "said where the rotation is"
    config.irrelevant({"rope_theta": known, "rope_local_base_freq": known})
    return {
        "rope_base": base,
        "rope_factor": factor,
        "local_rope_base": local_base,
        "local_rope_factor": local_factor,
    }


def _rotation(values: Mapping[str, object], where: Path) -> tuple[float | None, float | None]:
    """The base, if given, and the factor."""
    how = values.get("rope_type", values.get("type", "default"))
    if how not in ("default", "linear"):
        raise DataError(
            f"{where} scales rotary positions by {how!r} (rope_type in rope_scaling or "
            f"rope_parameters): only 'linear' is known here."
        )
    base = values.get("rope_theta")
    return (
        None if base is None else positive(where, "rope_theta", base),
        positive(where, "factor", values["factor"]) if how == "linear" else None,
    )


def _cap(config: SideFile, key: str, usual: float | None) -> float | None:
    value = config.get(key, usual)
    return None if value is None else positive(config.where, key, value)


def _config(trained: TrainedDecoder[Gemma]) -> Json:
    model = trained.model
    kind = "gemma3_text" if model.head_norm else "gemma2"
    if kind == "gemma3_text" and model.attention_cap is not None:
        raise ConfigError(
            "Gemma 3 does not cap attention: config.model.attention_cap must be None, or "
            "config.model.head_norm False as in Gemma 2."
        )
    far = rope_parameters(model.rope_base, model.rope_factor)
    near = rope_parameters(model.local_rope_base, model.local_rope_factor)
    if kind == "gemma2" and far != near:
        raise ConfigError(
            "Gemma 2 turns alike in all layers: config.model.local_rope_base must be "
            "config.model.rope_base and config.model.local_rope_factor config.model.rope_factor, "
            "or config.model.head_norm True as in Gemma 3."
        )
    return {
        "architectures": ["Gemma3ForCausalLM" if kind == "gemma3_text" else "Gemma2ForCausalLM"],
        "model_type": kind,
        **decoder_config(trained),
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": model.window,
        "layer_types": _layer_types(model.num_layers, model.global_every),
        "rope_parameters": {GLOBAL: far, LOCAL: near} if kind == "gemma3_text" else far,
        "query_pre_attn_scalar": model.query_scale or model.cache_heads()[1],
        "attn_logit_softcapping": model.attention_cap,
        "final_logit_softcapping": model.logit_cap,
    }


def _gemma_tokenizer(parts: BytePairs) -> tokenizers.Tokenizer:
    parts.settings.irrelevant({"add_prefix_space": "Gemma puts no space in front"})
    unknown = parts.special.get("unk_token")
    made = parts.tokenizer(fuse_unk=True, byte_fallback=True, unk_token=unknown)
    made.normalizer = normalizers.Replace(" ", SPACE)
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return made


_KINDS = tuple(_USUAL)
FAMILIES = (
    decoder_family(
        kinds=_KINDS,
        name="gemma",
        model=Gemma,
        fields=_fields,
        config=_config,
        entries=_entries,
        canonical=canonical,
        copies=tied_output,
        run=partial(decoder_run, dict.fromkeys(_KINDS, Usual("GemmaTokenizer"))),
        tokenizers={
            "GemmaTokenizer": DecoderClass(
                _gemma_tokenizer,
                {
                    "unk_token": "<unk>",
                    "bos_token": "<bos>",
                    "eos_token": "<eos>",
                    "pad_token": "<pad>",
                    "mask_token": "<mask>",
                },
            )
        },
    ),
)
