"""ModernBERT in the layout of the library `transformers`."""

from collections.abc import Set
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from transformer.data.reading.json_text import shown
from transformer.errors import DataError
from transformer.interop.activations import activation, published_activation
from transformer.interop.decoder_configs import GLOBAL, LOCAL
from transformer.interop.encoder_configs import IRRELEVANT
from transformer.interop.encoder_runs import (
    JOBS,
    TrainedEncoder,
    encoder_head,
    encoder_run,
    problem_type,
    write_encoder_files,
)
from transformer.interop.family import Family, Head, label_names
from transformer.interop.layout import (
    Arrays,
    Entry,
    Shape,
    entries,
    parameter_shapes,
    require_counts,
    require_heads,
    require_sizes,
    vector,
    without_layer,
)
from transformer.interop.side_files import CONFIG, SideFile, SideFiles
from transformer.models.modern_bert import ModernBert
from transformer.nn.heads import POOLINGS
from transformer.types import Json

_MODULES = {
    "blocks/{}/attention_norm": "model.layers.{}.attn_norm",
    "blocks/{}/attention/output": "model.layers.{}.attn.Wo",
    "blocks/{}/feed_forward_norm": "model.layers.{}.mlp_norm",
    "blocks/{}/feed_forward/down": "model.layers.{}.mlp.Wo",
    "token_embedding": "model.embeddings.tok_embeddings",
    "embedding_norm": "model.embeddings.norm",
    "final_norm": "model.final_norm",
    "head/dense": "head.dense",
    "head/norm": "head.norm",
    "output": "classifier",
}
# Kernels that are concatenated in one array, by the first of them: all of them, and its name.
_JOINED = {
    "blocks/{}/attention/query": (("query", "key", "value"), "model.layers.{}.attn.Wqkv.weight"),
    "blocks/{}/feed_forward/gate": (("gate", "up"), "model.layers.{}.mlp.Wi.weight"),
}
_IRRELEVANT = IRRELEVANT | {
    "initializer_cutoff_factor": "of random weights",
    "pad_token_id": "a row of the table like any other",
    **dict.fromkeys(("layer_norm_eps", "position_embedding_type"), "of other encoders"),
    **dict.fromkeys(
        (
            "deterministic_flash_attn",
            "reference_compile",
            "repad_logits_with_grad",
            "sparse_prediction",
            "sparse_pred_ignore_index",
        ),
        "speed",
    ),
}
# Keys with a single supported value.
_ONLY: dict[str, object] = {
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "rope_scaling": None,
}
_GLOBAL_EVERY = 3
_DROPOUTS = ("embedding_dropout", "attention_dropout", "classifier_dropout")
_TABLE = "model.embeddings.tok_embeddings.weight"


def _canonical(name: str) -> str | None:
    """Adds the prefix that bare encoders leave out."""
    bare = name.startswith(("embeddings.", "layers.", "final_norm."))
    return f"model.{name}" if bare else name


# -------------------------------------------------------------------------- theirs to ours


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    # It is a rate of its own there.
    config.irrelevant({key: why for key, why in _IRRELEVANT.items() if key not in _DROPOUTS})
    config.only(_ONLY)
    dropout_rate = config.fraction("mlp_dropout", 0.0)
    # Our model has one rate for all; if they differ, the ignored ones are reported.
    config.usual(dict.fromkeys(_DROPOUTS, dropout_rate))
    num_layers = config.whole("num_hidden_layers", 22)
    rope_base, local_rope_base = _rotations(config)
    outputs = shapes.get("classifier.bias")
    found = {
        "vocab_size": config.whole("vocab_size", 50_368),
        "num_outputs": outputs[0] if outputs else None,
        "num_layers": num_layers,
        "num_heads": config.whole("num_attention_heads", 12),
        "width": config.whole("hidden_size", 768),
        "feed_forward_width": config.whole("intermediate_size", 1152),
        "context": config.whole("max_position_embeddings", 8192),
        # The published width covers both sides, and the last position counts.
        "window": config.whole("local_attention", 128) // 2 + 1,
        "global_every": _global_every(config, num_layers),
        "rope_base": rope_base,
        "local_rope_base": local_rope_base,
        "activation": activation(config, "hidden_activation", "gelu"),
        "head_activation": activation(config, "classifier_activation", "gelu"),
        "pooling": config.one_of("classifier_pooling", "cls", POOLINGS),
        "norm_epsilon": config.number("norm_eps", 1e-5),
        "dropout_rate": dropout_rate,
    }
    inner = "model.layers.0.mlp.Wo.weight"
    sizes = (
        ("vocab_size", found["vocab_size"], _TABLE, 0),
        ("hidden_size", found["width"], _TABLE, 1),
        ("intermediate_size", found["feed_forward_width"], inner, 1),
    )
    require_sizes(where, shapes, sizes)
    require_counts(where, shapes, {"model.layers.": ("num_hidden_layers", num_layers)})
    heads = ("num_attention_heads", found["num_heads"])
    require_heads(where, heads, ("hidden_size", found["width"]))
    return found


def _rotations(config: SideFile) -> tuple[float, float]:
    """The bases of rotary positions in global and local layers.

    Raises:
        DataError: if they are scaled.
    """
    parts = config.inside("rope_parameters")
    bases = []
    old = {GLOBAL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}
    for kind, (key, usual) in old.items():
        part = parts.inside(kind)
        part.only({"rope_type": "default"})
        if "rope_theta" in part:
            config.irrelevant({key: "rope_parameters say it"})
            bases.append(part.positive("rope_theta"))
        else:
            bases.append(config.positive(key, usual))
    return bases[0], bases[1]


def _global_every(config: SideFile, num_layers: int) -> int:
    """The period n of global layers: layers 0, n, 2n, ... see everything.

    Raises:
        DataError: if the order of layers is not supported.
    """
    kinds = config.texts("layer_types") or None
    if kinds is None:
        return config.whole("global_attn_every_n_layers", _GLOBAL_EVERY)
    config.irrelevant({"global_attn_every_n_layers": "layer_types say it"})
    every = kinds.index(GLOBAL, 1) if GLOBAL in kinds[1:] else max(2, num_layers)
    if kinds != _layer_types(num_layers, every):
        raise DataError(
            f"{config.where} has layer_types in an order that is not known here, or of another "
            f"number than num_hidden_layers, {num_layers}: {shown(kinds)}."
        )
    return every


def _layer_types(num_layers: int, every: int) -> list[str]:
    return [LOCAL if layer % every else GLOBAL for layer in range(num_layers)]


def _head(files: SideFiles, paths: Set[str]) -> Head:
    """The job of the head, and the names of its outputs."""
    if "token_bias/bias" in paths:
        files[CONFIG].only({"tie_word_embeddings": True})
    else:
        files[CONFIG].irrelevant({"tie_word_embeddings": "there is no output layer of tokens"})
    return encoder_head(files, has_output="output/kernel" in paths)


# ---------------------------------------------------------------------------- both ways


def _entries(model: ModernBert) -> list[Entry]:
    # The first layer lacks a norm that all other layers have.
    tokens = jnp.zeros((1, 2), jnp.int32)
    depths = {"num_layers": model.num_layers}
    shapes = parameter_shapes(model, _use_all, tokens, depths=depths, traced=2)
    others = {
        "token_bias/bias": vector("token_bias/bias", "decoder.bias", shapes["token_bias/bias"])
    }
    for path, shape in shapes.items():
        module = path.removesuffix("/kernel")
        general, layer = without_layer(module)
        if general in _JOINED:
            parts, name = _JOINED[general]
            paths = [f"{module.rpartition('/')[0]}/{part}/kernel" for part in parts]
            others |= dict.fromkeys(paths, _joined(tuple(paths), name.format(layer), shape))
    return entries(shapes, _MODULES, others)


def _joined(paths: tuple[str, ...], name: str, shape: Shape) -> Entry:
    """The entry of kernels of equal shape; files hold their transposes concatenated."""
    inputs, outputs = shape[0], int(np.prod(shape[1:]))

    def read(arrays: Arrays) -> Arrays:
        return [part.T.reshape(shape) for part in np.split(arrays[0], len(paths))]

    def write(arrays: Arrays) -> Arrays:
        return [np.concatenate([kernel.reshape(inputs, outputs).T for kernel in arrays])]

    return Entry(paths, (name,), ((len(paths) * outputs, inputs),), read, write)


def _use_all(model: ModernBert, tokens: Int[Array, "B T"]) -> None:
    """Calls every module that has parameters."""
    model.logits(model.masked(model(tokens), tokens))
    model.classify(tokens)


# -------------------------------------------------------------------------- ours to theirs


def _config(trained: TrainedEncoder[ModernBert]) -> Json:
    """Writes what `_fields` reads."""
    model, tokenizer, paths = trained.model, trained.tokenizer, trained.paths
    plain = "ForMaskedLM" if "token_bias/bias" in paths else "Model"
    names = {job: name for name, job in JOBS.items()}
    suffix = names.get(trained.job, plain) if "output/kernel" in paths else plain
    return {
        "architectures": [f"ModernBert{suffix}"],
        "model_type": "modernbert",
        "vocab_size": model.vocab_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "hidden_size": model.width,
        "intermediate_size": model.feed_forward_width,
        "max_position_embeddings": model.context,
        "local_attention": 2 * (model.window - 1),
        "global_attn_every_n_layers": model.global_every,
        "layer_types": _layer_types(model.num_layers, model.global_every),
        "rope_parameters": {
            GLOBAL: {"rope_type": "default", "rope_theta": model.rope_base},
            LOCAL: {"rope_type": "default", "rope_theta": model.local_rope_base},
        },
        "hidden_activation": published_activation(model.activation),
        "classifier_activation": published_activation(model.head_activation),
        "classifier_pooling": model.pooling,
        "norm_eps": model.norm_epsilon,
        **dict.fromkeys(("mlp_dropout", *_DROPOUTS), model.dropout_rate),
        "pad_token_id": tokenizer.pad,
        "bos_token_id": tokenizer.start,
        "cls_token_id": tokenizer.start,
        "eos_token_id": tokenizer.separator,
        "sep_token_id": tokenizer.separator,
        **problem_type(trained),
        **label_names(trained.labels),
    }


FAMILIES = (
    Family(
        kinds=("modernbert",),
        name="modern_bert",
        model=ModernBert,
        fields=_fields,
        config=_config,
        entries=_entries,
        head=_head,
        # Its tokenizer is the unchanged tokenizer.json.
        run=partial(encoder_run, "PreTrainedTokenizer"),
        beside=write_encoder_files,
        heads=("head", "token_bias", "output"),
        canonical=_canonical,
        copies=lambda model: {"decoder.weight": _TABLE},
    ),
)
