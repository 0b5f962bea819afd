"""GPT-2 in the layout of the library `transformers`."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, pre_tokenizers

from transformer.errors import ConfigError
from transformer.interop.activations import activation, published_activation
from transformer.interop.decoder_configs import (
    IRRELEVANT,
    decoder_shapes,
    require_output,
)
from transformer.interop.decoder_runs import (
    TrainedDecoder,
    decoder_family,
    decoder_run,
    token_ids,
)
from transformer.interop.layout import (
    Arrays,
    Entry,
    Shape,
    entries,
    require_counts,
    require_heads,
    require_sizes,
    same,
    without_layer,
)
from transformer.interop.side_files import SideFile
from transformer.interop.tokenizers.decoders import BytePairs, DecoderClass, Usual
from transformer.models.gpt import GPT
from transformer.types import Json

_NOT_READ = {
    "reorder_and_upcast_attn": "how float16 is rounded",
    "n_ctx": "n_positions says it",
    **dict.fromkeys(
        (
            "summary_type",
            "summary_use_proj",
            "summary_activation",
            "summary_proj_to_labels",
            "summary_first_dropout",
        ),
        "of a head that is not read",
    ),
}
_MODULES = {
    "blocks/{}/attention_norm": "transformer.h.{}.ln_1",
    "blocks/{}/attention/output": "transformer.h.{}.attn.c_proj",
    "blocks/{}/feed_forward_norm": "transformer.h.{}.ln_2",
    "blocks/{}/feed_forward/up": "transformer.h.{}.mlp.c_fc",
    "blocks/{}/feed_forward/down": "transformer.h.{}.mlp.c_proj",
    "final_norm": "transformer.ln_f",
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "output": "lm_head",
}
_END = "<|endoftext|>"
# GPT-2 stores queries, keys and values in one array.
_QUERY = "blocks/{}/attention/query"
# Masks that old files hold besides the weights.
_CONSTANT = re.compile(r"\.attn\.(masked_)?bias$")


def _canonical(name: str) -> str | None:
    """Adds the prefix that models without an output layer leave out."""
    if _CONSTANT.search(name):
        return None
    return f"transformer.{name}" if name.startswith(("h.", "ln_f.", "wte.", "wpe.")) else name


def _entries(model: GPT) -> list[Entry]:
    shapes, others = decoder_shapes(model), {}
    for path, shape in shapes.items():
        module, _, kind = path.rpartition("/")
        general, layer = without_layer(module)
        if general == _QUERY:
            place = f"transformer.h.{layer}.attn.c_attn"
            entry = _fused(module.rpartition("/")[0], place, kind, shape)
            others |= dict.fromkeys(entry.paths, entry)
        elif kind == "kernel" and layer is not None and general in _MODULES:
            # GPT-2's matrices are not transposed, unlike those of all other families.
            flat = (int(np.prod(shape[:-1])), shape[-1])
            name = f"{_MODULES[general].format(layer)}.weight"
            others[path] = _flattened(same(path, name, flat), shape)
    return entries(shapes, _MODULES, others)


def _flattened(entry: Entry, shape: Shape) -> Entry:
    """The entry of a matrix whose first axis corresponds to several axes of ours."""
    return entry._replace(
        read=lambda arrays: [arrays[0].reshape(shape)],
        write=lambda arrays: [arrays[0].reshape(entry.shapes[0])],
    )


def _fused(module: str, name: str, kind: str, shape: Shape) -> Entry:
    """The entry of queries, keys and values that are concatenated in one array."""
    inputs = shape[:1] if kind == "kernel" else ()
    features = int(np.prod(shape[len(inputs) :]))

    def read(arrays: Arrays) -> Arrays:
        return [part.reshape(shape) for part in np.split(arrays[0], 3, axis=-1)]

    def write(arrays: Arrays) -> Arrays:
        return [np.concatenate([array.reshape(*inputs, features) for array in arrays], axis=-1)]

    return Entry(
        paths=tuple(f"{module}/{part}/{kind}" for part in ("query", "key", "value")),
        names=(f"{name}.{'weight' if kind == 'kernel' else 'bias'}",),
        shapes=((*inputs, 3 * features),),
        read=read,
        write=write,
    )


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    config.irrelevant(IRRELEVANT | _NOT_READ)
    config.usual({"is_encoder_decoder": False})
    config.only(
        {
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        }
    )
    # Our model has one rate for all three; if they differ, the ignored ones are reported.
    dropout_rate = config.fraction("resid_pdrop", 0.1)
    config.usual(dict.fromkeys(("embd_pdrop", "attn_pdrop"), dropout_rate))
    width, num_heads = config.whole("n_embd", 768), config.whole("n_head", 12)
    require_heads(where, ("n_head", num_heads), ("n_embd", width))
    sizes = {
        "vocab_size": config.whole("vocab_size", 50_257),
        "num_layers": config.whole("n_layer", 12),
        "context": config.whole("n_positions", 1024),
        "feed_forward_width": config.whole_or_none("n_inner") or 4 * width,
    }
    require_counts(where, shapes, {"transformer.h.": ("n_layer", sizes["num_layers"])})
    shown = (
        ("vocab_size", sizes["vocab_size"], "transformer.wte.weight", 0),
        ("n_embd", width, "transformer.wte.weight", 1),
        ("n_positions", sizes["context"], "transformer.wpe.weight", 0),
        ("n_inner", sizes["feed_forward_width"], "transformer.h.0.mlp.c_fc.weight", 1),
    )
    require_sizes(where, shapes, shown)
    tied = config.flag("tie_word_embeddings", True)
    require_output(tied, where, shapes)
    return {
        **sizes,
        "num_heads": num_heads,
        "width": width,
        "activation": activation(config, "activation_function", "gelu_new"),
        "norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
        "tie_embeddings": tied,
        "dropout_rate": dropout_rate,
    }


def _config(trained: TrainedDecoder[GPT]) -> Json:
    model = trained.model
    if not model.qkv_bias or model.output_bias:
        raise ConfigError(
            "GPT-2 has biases on queries, keys and values and none on the output layer: "
            "config.model.qkv_bias or config.model.output_bias is otherwise."
        )
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "n_embd": model.width,
        "n_inner": model.feed_forward_width or 4 * model.width,
        "n_positions": model.context,
        "activation_function": published_activation(model.activation, "gelu_new"),
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tie_embeddings,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), model.dropout_rate),
        **token_ids(trained),
    }


def _tied(model: GPT) -> dict[str, str]:
    return {"lm_head.weight": "transformer.wte.weight"} if model.tie_embeddings else {}


def _gpt2_tokenizer(parts: BytePairs) -> tokenizers.Tokenizer:
    made = parts.tokenizer()
    spaced = parts.settings.flag("add_prefix_space", False)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    made.decoder = decoders.ByteLevel()
    return made


FAMILIES = (
    decoder_family(
        kinds=("gpt2",),
        name="gpt",
        model=GPT,
        fields=_fields,
        config=_config,
        entries=_entries,
        canonical=_canonical,
        copies=_tied,
        run=partial(decoder_run, {"gpt2": Usual("GPT2Tokenizer")}),
        tokenizers={
            "GPT2Tokenizer": DecoderClass(
                _gpt2_tokenizer,
                dict.fromkeys(("unk_token", "bos_token", "eos_token"), _END),
                files=True,
            )
        },
    ),
)
