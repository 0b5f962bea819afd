"""ViT and DeiT in the layout of the library `transformers`."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from transformer.errors import ConfigError, DataError
from transformer.interop.layout import Entry, Shape, entries, single
from transformer.interop.published import (
    Family,
    Head,
    label_names,
    parameter_shapes,
    theirs_of,
)
from transformer.interop.side_files import SideFile, SideFiles
from transformer.models.vit import ViT

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_ENCODER = {
    "blocks/layer_{}/attention/query": "{}.encoder.layer.{}.attention.attention.query",
    "blocks/layer_{}/attention/key": "{}.encoder.layer.{}.attention.attention.key",
    "blocks/layer_{}/attention/value": "{}.encoder.layer.{}.attention.attention.value",
    "blocks/layer_{}/attention/output": "{}.encoder.layer.{}.attention.output.dense",
    "blocks/layer_{}/feed_forward/up": "{}.encoder.layer.{}.intermediate.dense",
    "blocks/layer_{}/feed_forward/down": "{}.encoder.layer.{}.output.dense",
    "blocks/layer_{}/attention_norm": "{}.encoder.layer.{}.layernorm_before",
    "blocks/layer_{}/feed_forward_norm": "{}.encoder.layer.{}.layernorm_after",
    "final_norm": "{}.layernorm",
    "patch_embedding/dense": "{}.embeddings.patch_embeddings.projection",
}
_TOKENS = {
    "class_token": "{}.embeddings.cls_token",
    "distillation_token": "{}.embeddings.distillation_token",
    "position_embedding/embedding": "{}.embeddings.position_embeddings",
}


def _canonical(kind: str, name: str) -> str | None:
    """The name with the prefix that encoders alone leave out."""
    # A model with two heads calls the first of them so.
    name = name.removeprefix("cls_")
    return f"{kind}.{name}" if name.startswith(("embeddings.", "encoder.", "layernorm.")) else name


def _entries(kind: str, model: ViT) -> list[Entry]:
    images = jnp.zeros((1, model.image_size, model.image_size, model.channels or 0))
    shapes = parameter_shapes(model, _classified, images)
    modules = {ours: theirs.format(kind, "{}") for ours, theirs in _ENCODER.items()}
    modules |= {"output": "classifier", "distillation_output": "distillation_classifier"}
    # In front of all patches, with an axis for the batch.
    others = {
        path: single(path, name.format(kind), shapes[path], (1, *shapes[path]))
        for path, name in _TOKENS.items()
        if path in shapes
    }
    path, side, channels = "patch_embedding/dense/kernel", model.patch_size, model.channels or 0
    # Theirs is a convolution: [D, C, rows, columns]. A patch of ours is rows, columns, C.
    name = f"{modules['patch_embedding/dense']}.weight"
    theirs = (model.width, channels, side, side)
    others[path] = single(path, name, shapes[path], theirs, (2, 3, 1, 0))
    return entries(shapes, modules, others)


def _classified(model: ViT, images: Any) -> Any:
    """Calls whatever has parameters."""
    return model.classify(images)


def _fields(kind: str, config: SideFile, where: Path, shapes: dict[str, Shape]) -> dict[str, Any]:
    """Fields of `config.model`, refusing what our model does not do."""
    activation = config.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise DataError(f"{where} has the activation {activation!r}: it is not known here.")
    if not config.get("qkv_bias", True):
        raise DataError(f"{where} has no biases on queries, keys and values: ours has.")
    outputs = shapes.get("classifier.bias")
    distilled = "none"
    if kind == "deit":
        distilled = "two" if "distillation_classifier.bias" in shapes else "one"
    return {
        "num_outputs": outputs[0] if outputs else None,
        "channels": int(config.get("num_channels", 3)),
        "image_size": int(config.get("image_size", 224)),
        "patch_size": int(config.get("patch_size", 16)),
        "num_layers": int(config["num_hidden_layers"]),
        "num_heads": int(config["num_attention_heads"]),
        "width": int(config["hidden_size"]),
        "feed_forward_width": int(config["intermediate_size"]),
        "activation": _ACTIVATIONS[activation],
        "norm_epsilon": float(config.get("layer_norm_eps", 1e-12)),
        "dropout_rate": float(config.get("hidden_dropout_prob", 0.0)),
        "distillation": distilled,
    }


def _config(kind: str, model: ViT, head: Head, paths: Set[str]) -> dict[str, Any]:
    beyond = {
        "pooling": "class",
        "positions": "learned",
        "num_registers": 0,
        "stem": "patches",
        "layer_scale": None,
    }
    for field, value in beyond.items():
        if getattr(model, field) != value:
            raise ConfigError(
                f"config.model.{field} is {getattr(model, field)!r}: published ViTs have {value!r}."
            )
    name = {"vit": "ViTForImageClassification", "deit": "DeiTForImageClassification"}[kind]
    return {
        "architectures": [name + ("WithTeacher" if model.distillation == "two" else "")],
        "model_type": kind,
        "num_channels": model.channels,
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "hidden_size": model.width,
        "intermediate_size": model.feed_forward_width or 4 * model.width,
        "hidden_act": theirs_of(_ACTIVATIONS, model.activation),
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout_prob": model.dropout_rate,
        "attention_probs_dropout_prob": model.dropout_rate,
        "qkv_bias": True,
        **label_names(head.outputs or ()),
    }


def _head(files: SideFiles, paths: Set[str]) -> Head:
    """Mean and standard deviation of pixels between 0 and 1; without a file, the usual ones."""
    content, preparation = files["preprocessor_config.json"], {}
    for field, key in (("mean", "image_mean"), ("std", "image_std")):
        values = content.get(key)
        if values is not None:
            try:
                preparation[field] = tuple(float(value) for value in values)
            except (TypeError, ValueError):
                raise DataError(
                    f"{content.where}: {key} is {values!r}: expected numbers."
                ) from None
    return Head("image_classification", None, preparation)


def _exported(name: str, model: ViT, job: str) -> str:
    if model.distillation == "two" and name.startswith("classifier."):
        return f"cls_{name}"
    return name


def _family(kind: str) -> Family:
    return Family(
        kinds=(kind,),
        name="vit",
        model=ViT,
        fields=lambda *arguments: _fields(kind, *arguments),
        config=lambda *arguments: _config(kind, *arguments),
        entries=lambda model: _entries(kind, model),
        head=_head,
        suits=lambda model: (kind == "deit") == (model.distillation != "none"),
        heads=("output", "distillation_output"),
        canonical=lambda name: _canonical(kind, name),
        exported=_exported,
        not_ours=r"^((vit|deit)\.)?pooler\.",
    )


VIT = _family("vit")
DEIT = _family("deit")
