"""Llama, Mistral, Qwen2 and Qwen3 in the layout of the library `transformers`."""

import re
from functools import partial
from pathlib import Path

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

from transformer.data.reading.json_text import shown
from transformer.errors import ConfigError, DataError
from transformer.interop.activations import activation, published_activation
from transformer.interop.decoder_configs import (
    GLOBAL,
    LOCAL,
    SIZES,
    decoder_config,
    decoder_fields,
    decoder_shapes,
    rope_parameters,
    rotary_fields,
)
from transformer.interop.decoder_runs import TrainedDecoder, decoder_family, decoder_run
from transformer.interop.formats.tokenizers import SPACE, words_of
from transformer.interop.layout import Entry, Shape, entries
from transformer.interop.side_files import SideFile
from transformer.interop.tokenizers.decoders import BytePairs, DecoderClass, Usual
from transformer.models.llama import Llama
from transformer.nn.decoder import DecoderOnly
from transformer.types import Json

_QWEN = {
    **SIZES,
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
}
_USUAL = {
    "llama": {**SIZES, "intermediate_size": 11_008, "max_position_embeddings": 2048},
    "mistral": {
        **SIZES,
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
    },
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head_dim": 128},
}
_ATTENTION = {
    "blocks/{}/attention/query": "model.layers.{}.self_attn.q_proj",
    "blocks/{}/attention/key": "model.layers.{}.self_attn.k_proj",
    "blocks/{}/attention/value": "model.layers.{}.self_attn.v_proj",
    "blocks/{}/attention/output": "model.layers.{}.self_attn.o_proj",
    "blocks/{}/attention/query_norm": "model.layers.{}.self_attn.q_norm",
    "blocks/{}/attention/key_norm": "model.layers.{}.self_attn.k_norm",
    "blocks/{}/attention_norm": "model.layers.{}.input_layernorm",
}
FEED_FORWARD = {
    "blocks/{}/feed_forward/gate": "model.layers.{}.mlp.gate_proj",
    "blocks/{}/feed_forward/up": "model.layers.{}.mlp.up_proj",
    "blocks/{}/feed_forward/down": "model.layers.{}.mlp.down_proj",
}
AROUND = {
    **_ATTENTION,
    "blocks/{}/feed_forward_norm": "model.layers.{}.post_attention_layernorm",
    "token_embedding": "model.embed_tokens",
    "final_norm": "model.norm",
    "output": "lm_head",
}
# Constants that old files hold besides the weights.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$")


def canonical(name: str) -> str | None:
    """Adds the prefix that models without an output layer leave out."""
    if _COMPUTED.search(name):
        return None
    return f"model.{name}" if name.startswith(("layers.", "embed_tokens.", "norm.")) else name


def tied_output(model: DecoderOnly) -> dict[str, str]:
    """The output layer that some files store although it is tied to the table."""
    return {"lm_head.weight": "model.embed_tokens.weight"} if model.tie_embeddings else {}


def _entries(model: Llama) -> list[Entry]:
    return entries(decoder_shapes(model), AROUND | FEED_FORWARD)


# -------------------------------------------------------------------------- theirs to ours


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    kind = config.text("model_type")
    config.usual({"attention_dropout": 0.0})
    biases = {"llama": ("attention_bias", "mlp_bias"), "qwen3": ("attention_bias",)}
    config.only(dict.fromkeys(biases.get(kind, ()), False))
    fields = decoder_fields(config, where, _USUAL[kind], shapes)
    window = None
    if kind == "mistral":
        window = config.whole_or_none("sliding_window", 4096)
    elif kind != "llama":
        window = _window_of_layers(config, where, fields["num_layers"])
    return {
        **fields,
        "activation": activation(config, "hidden_act", "silu"),
        "window": window,
        "qkv_bias": kind == "qwen2",
        "head_norm": kind == "qwen3",
        **rotary_fields(config, where, 10_000.0),
    }


def _window_of_layers(config: SideFile, where: Path, num_layers: int) -> int | None:
    """The window of Qwen's layers; either all layers or none must have it."""
    window = None
    if config.flag("use_sliding_window", False):
        window = config.whole_or_none("sliding_window", 4096)
    else:
        config.irrelevant({"sliding_window": "use_sliding_window is off"})
    kinds = config.texts("layer_types") or None
    if kinds is not None or window is None:
        config.irrelevant({"max_window_layers": "other keys say it"})
    if kinds is None:
        first = num_layers
        if window is not None:
            first = config.whole("max_window_layers", 28, least=0)
        kinds = [LOCAL if layer >= first else GLOBAL for layer in range(num_layers)]
    if kinds == [GLOBAL] * num_layers:
        return None
    if kinds == [LOCAL] * num_layers and window is not None:
        return window
    raise DataError(
        f"{where} has a window in some layers only (use_sliding_window, sliding_window, "
        f"max_window_layers, layer_types: {shown(kinds)}): here all of its num_hidden_layers "
        f"have it, or none."
    )


# -------------------------------------------------------------------------- ours to theirs


def _config(trained: TrainedDecoder[Llama]) -> Json:
    """`config.json` of the kind with the same features as the model."""
    model = trained.model
    # Without biases and normalised heads, a published model with a window is a Mistral.
    if model.head_norm:
        kind, name = "qwen3", "Qwen3ForCausalLM"
    elif model.qkv_bias:
        kind, name = "qwen2", "Qwen2ForCausalLM"
    elif model.window is not None:
        kind, name = "mistral", "MistralForCausalLM"
    else:
        kind, name = "llama", "LlamaForCausalLM"
    if model.head_norm and model.qkv_bias:
        raise ConfigError(
            "no published model has both config.model.head_norm and config.model.qkv_bias: qwen3 "
            "has the first, qwen2 the second."
        )
    window: Json = {}
    if kind == "mistral":
        window = {"sliding_window": model.window}
    elif kind != "llama":
        window = {
            "use_sliding_window": model.window is not None,
            "sliding_window": model.window,
            "max_window_layers": 0 if model.window is not None else model.num_layers,
            "layer_types": [GLOBAL if model.window is None else LOCAL] * model.num_layers,
        }
    return {
        "architectures": [name],
        "model_type": kind,
        **decoder_config(trained),
        "hidden_act": published_activation(model.activation),
        "rope_parameters": rotation(model),
        "rope_theta": model.rope_base,
        **window,
    }


def rotation(model: Llama) -> Json:
    """Writes what `rotary_fields` reads."""
    found = rope_parameters(model.rope_base, model.rope_factor)
    if model.rope_factor is None or model.rope_old_context is None:
        return found
    return found | {
        "rope_type": "llama3",
        "low_freq_factor": model.rope_low_frequency,
        "high_freq_factor": model.rope_high_frequency,
        "original_max_position_embeddings": model.rope_old_context,
    }


# ------------------------------------------------------------------------------- tokenizers


def _llama_tokenizer(parts: BytePairs) -> tokenizers.Tokenizer:
    made, settings = parts.tokenizer(fuse_unk=True, byte_fallback=True), parts.settings
    spaced = settings.get("add_prefix_space") is None or settings.flag("add_prefix_space", True)
    # Without `legacy` the library adds a space before a text, with it before each part.
    scheme = "never"
    if spaced:
        scheme = "always" if settings.flag("legacy", False) else "first"
    made.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=SPACE, prepend_scheme=scheme, split=False
    )
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if spaced else [])])
    return made


def _qwen2_tokenizer(parts: BytePairs) -> tokenizers.Tokenizer:
    made = parts.tokenizer()
    spaced = parts.settings.flag("add_prefix_space", False)
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = words_of("qwen2", spaced=spaced)
    made.decoder = decoders.ByteLevel()
    return made


FAMILIES = (
    decoder_family(
        kinds=tuple(_USUAL),
        name="llama",
        model=Llama,
        fields=_fields,
        config=_config,
        entries=_entries,
        canonical=canonical,
        copies=tied_output,
        run=partial(
            decoder_run,
            {
                "mistral": Usual(as_it_is=True),
                # Without a tokenizer.json, words are split as in Qwen2Tokenizer, whatever the files
                # say.
                "qwen2": Usual("Qwen2Tokenizer", without_json="Qwen2Tokenizer"),
                "qwen3": Usual("Qwen2Tokenizer"),
            },
        ),
        tokenizers={
            "LlamaTokenizer": DecoderClass(
                _llama_tokenizer,
                {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
                # Llama 3's tokenizer, which some files call by the name of Llama 2's.
                foreign="ByteLevel",
            ),
            "Qwen2Tokenizer": DecoderClass(
                _qwen2_tokenizer,
                dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
                files=True,
            ),
        },
    ),
)
