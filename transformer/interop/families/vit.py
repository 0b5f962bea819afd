"""ViT and DeiT in the layout of the library `transformers`."""

from collections.abc import Set
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from transformer.data.images.preparation import Preparation
from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.errors import DataError
from transformer.files import write_json
from transformer.interop.activations import activation, published_activation
from transformer.interop.checked_values import whole
from transformer.interop.family import (
    Family,
    Head,
    Published,
    RunParts,
    Source,
    Trained,
    label_names,
    require_known,
)
from transformer.interop.image_processors import PREPROCESSOR, processor_content, read_preparation
from transformer.interop.layout import (
    Entry,
    Shape,
    entries,
    parameter_shapes,
    require_counts,
    require_heads,
    require_sizes,
    single,
)
from transformer.interop.side_files import CONFIG, SideFile, SideFiles
from transformer.models.vit import ViT
from transformer.types import Json

# Defaults of missing keys.
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
}
# For each size, the array and axis that show it.
_SHOWN = (
    ("hidden_size", "embeddings.cls_token", 2),
    ("intermediate_size", "encoder.layer.0.intermediate.dense.bias", 0),
    ("num_channels", "embeddings.patch_embeddings.projection.weight", 1),
    ("patch_size", "embeddings.patch_embeddings.projection.weight", 2),
)
# The image processors of the library, by kind of model.
_PROCESSORS = {"vit": "ViT", "deit": "DeiT"}
_MULTI_LABEL = "multi_label_classification"
_NUM_LABELS = 2
_PROBLEMS = (None, "single_label_classification", _MULTI_LABEL)
_IRRELEVANT = {
    "architectures": "arrays show the heads",
    "attention_probs_dropout_prob": "of training",
    "encoder_stride": "of a decoder of masked patches, which is not read",
    "pooler_output_size": "of the pooler, which is not read",
    "pooler_act": "of the pooler, which is not read",
}
_ENCODER = {
    "blocks/{}/attention/query": "{}.encoder.layer.{}.attention.attention.query",
    "blocks/{}/attention/key": "{}.encoder.layer.{}.attention.attention.key",
    "blocks/{}/attention/value": "{}.encoder.layer.{}.attention.attention.value",
    "blocks/{}/attention/output": "{}.encoder.layer.{}.attention.output.dense",
    "blocks/{}/feed_forward/up": "{}.encoder.layer.{}.intermediate.dense",
    "blocks/{}/feed_forward/down": "{}.encoder.layer.{}.output.dense",
    "blocks/{}/attention_norm": "{}.encoder.layer.{}.layernorm_before",
    "blocks/{}/feed_forward_norm": "{}.encoder.layer.{}.layernorm_after",
    "final_norm": "{}.layernorm",
    "patch_embedding/dense": "{}.embeddings.patch_embeddings.projection",
}
_TOKENS = {
    "class_token": "{}.embeddings.cls_token",
    "distillation_token": "{}.embeddings.distillation_token",
    "position_embedding/embedding": "{}.embeddings.position_embeddings",
}


class _Images(Protocol):
    """What the task of a ViT reads."""

    preparation: Preparation


@runtime_checkable
class _ImageTask(Protocol):
    """The task of a ViT."""

    images: _Images


@runtime_checkable
class _ImageClasses(Protocol):
    """The outputs of an image classifier."""

    multi_label: bool


_TrainedViT = Trained[ViT, _ImageTask, None]


def _canonical(kind: str, name: str) -> str | None:
    """Adds the prefix that bare encoders leave out."""
    # The prefix of the first head in models with two heads.
    name = name.removeprefix("cls_")
    return f"{kind}.{name}" if name.startswith(("embeddings.", "encoder.", "layernorm.")) else name


def _entries(kind: str, model: ViT) -> list[Entry]:
    size = (1, model.image_size, model.image_size, model.channels or 0)
    images = jax.ShapeDtypeStruct(size, jnp.float32)
    depths = {"num_layers": model.num_layers}
    shapes = parameter_shapes(model, ViT.classify, images, depths=depths)
    modules = {ours: theirs.format(kind, "{}") for ours, theirs in _ENCODER.items()}
    modules |= {"output": "classifier", "distillation_output": "distillation_classifier"}
    # Tokens before all patches; the published arrays have a batch axis.
    others = {
        path: single(path, name.format(kind), shapes[path], (1, *shapes[path]))
        for path, name in _TOKENS.items()
        if path in shapes
    }
    path, side, channels = "patch_embedding/dense/kernel", model.patch_size, model.channels or 0
    # Published as a convolution [D, C, rows, columns]; our patches are [rows, columns, C].
    name = f"{modules['patch_embedding/dense']}.weight"
    theirs = (model.width, channels, side, side)
    others[path] = single(path, name, shapes[path], theirs, (2, 3, 1, 0))
    return entries(shapes, modules, others)


def _fields(kind: str, config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    config.irrelevant(_IRRELEVANT)
    config.only({"qkv_bias": True})
    activated = activation(config, "hidden_act", "gelu")
    sizes = {key: _size(config, key) for key in _DEFAULTS}
    _require_sizes(kind, sizes, where, shapes)
    outputs = shapes.get("classifier.bias")
    if outputs:
        _require_labels(config, outputs[0], where)
    distilled = "none"
    if kind == "deit":
        distilled = "two" if "distillation_classifier.bias" in shapes else "one"
    return {
        "num_outputs": outputs[0] if outputs else None,
        "channels": sizes["num_channels"],
        "image_size": sizes["image_size"],
        "patch_size": sizes["patch_size"],
        "num_layers": sizes["num_hidden_layers"],
        "num_heads": sizes["num_attention_heads"],
        "width": sizes["hidden_size"],
        "feed_forward_width": sizes["intermediate_size"],
        "activation": activated,
        "norm_epsilon": config.number("layer_norm_eps", 1e-12),
        "dropout_rate": config.fraction("hidden_dropout_prob", 0.0),
        "distillation": distilled,
    }


def _size(config: SideFile, key: str) -> int:
    """A size; images and patches may have two equal numbers.

    Raises:
        DataError: if the two numbers differ.
    """
    value = config.get(key, _DEFAULTS[key])
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if isinstance(value, list):
        raise DataError(f"{config.where}: {key} is {shown(value)}: only squares can be read here.")
    most = bounds.PIXELS if key in ("image_size", "patch_size") else bounds.SIZE
    return whole(config.where, key, value, most=most)


def _require_sizes(kind: str, sizes: dict[str, int], where: Path, shapes: dict[str, Shape]) -> None:
    """Refuses sizes that differ from the arrays, naming the key."""
    shown = ((key, sizes[key], f"{kind}.{name}", axis) for key, name, axis in _SHOWN)
    require_sizes(where, shapes, shown)
    layers = ("num_hidden_layers", sizes["num_hidden_layers"])
    require_counts(where, shapes, {f"{kind}.encoder.layer.": layers})
    heads = ("num_attention_heads", sizes["num_attention_heads"])
    require_heads(where, heads, ("hidden_size", sizes["hidden_size"]))
    if sizes["num_channels"] not in (1, 3):
        raise DataError(f"{where}: num_channels is {sizes['num_channels']}: 1 or 3 can be read.")
    table = shapes.get(f"{kind}.embeddings.position_embeddings")
    patches = (sizes["image_size"] // sizes["patch_size"]) ** 2
    front = 2 if kind == "deit" else 1
    if table and table[1] != patches + front:
        raise DataError(
            f"{where}: image_size is {sizes['image_size']}, of {patches} patches, and the arrays "
            f"are for {table[1] - front}."
        )


def _require_labels(config: SideFile, outputs: int, where: Path) -> None:
    """Refuses invalid labels, naming the key."""
    if config.get("id2label") is None and config.whole("num_labels", _NUM_LABELS) != outputs:
        # The default of the library `transformers`.
        raise DataError(
            f"{where} has neither id2label nor num_labels, which means {_NUM_LABELS}, or another "
            f"number than the {outputs} of the arrays."
        )
    problem = config.text_or_none("problem_type")
    if problem not in _PROBLEMS or (outputs == 1 and problem != _MULTI_LABEL):
        raise DataError(
            f"{where}: problem_type is {problem!r} with {outputs} labels (id2label, num_labels): "
            f"numbers are not predicted of images here, only classes."
        )


def _config(kind: str, trained: _TrainedViT) -> Json:
    model, task = trained.model, trained.task
    require_known(
        "published ViTs",
        pooling=(model.pooling, "class"),
        positions=(model.positions, "learned"),
        num_registers=(model.num_registers, 0),
        stem=(model.stem, "patches"),
        layer_scale=(model.layer_scale, None),
    )
    several = isinstance(task, _ImageClasses) and task.multi_label
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
        "hidden_act": published_activation(model.activation, "gelu_fast"),
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout_prob": model.dropout_rate,
        "attention_probs_dropout_prob": model.dropout_rate,
        "qkv_bias": True,
        **({"problem_type": _MULTI_LABEL} if several else {}),
        **label_names(trained.labels),
    }


def _head(kind: str, files: SideFiles, paths: Set[str]) -> Head:
    """The classes, and the preprocessing of pixels."""
    config = files[CONFIG]
    sizes = (_size(config, key) for key in ("image_size", "num_channels"))
    fields: Json = {"preparation": read_preparation(files, _PROCESSORS[kind], *sizes)}
    if config.get("problem_type") == _MULTI_LABEL:
        fields["multi_label"] = True
    return Head("image_classification", None, fields)


def _run(source: Source, published: Published, max_length: int | None) -> RunParts:
    """The run of an image classifier."""
    return RunParts({"channels": published.model["channels"], **published.preparation})


def _write_files(trained: _TrainedViT, folder: Path) -> list[str]:
    """Writes the preprocessing of pixels."""
    content = processor_content(trained.task.images.preparation, trained.model.channels)
    write_json(folder / PREPROCESSOR, content)
    return []


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
        config=lambda trained: _config(kind, trained),
        entries=lambda model: _entries(kind, model),
        head=lambda *arguments: _head(kind, *arguments),
        run=_run,
        beside=_write_files,
        suits=lambda model: (kind == "deit") == (model.distillation != "none"),
        heads=("output", "distillation_output"),
        canonical=lambda name: _canonical(kind, name),
        exported=_exported,
        not_ours=r"^((vit|deit)\.)?pooler\.",
    )


FAMILIES = (_family("vit"), _family("deit"))
