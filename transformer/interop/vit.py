"""ViT checkpoints in the layout of the library `transformers`: `config.json` and safetensors."""

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
from transformer.models.vit import ViT

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_KINDS = {"weight": "kernel", "bias": "bias"}
_NORM_KINDS = {"weight": "scale", "bias": "bias"}
# Theirs to ours, after `vit.` in front is gone; `{}` is the number of the layer.
_NORMS = {
    "encoder.layer.{}.layernorm_before": "blocks/layer_{}/attention_norm",
    "encoder.layer.{}.layernorm_after": "blocks/layer_{}/feed_forward_norm",
    "layernorm": "final_norm",
}
_LAYERS = {
    "encoder.layer.{}.attention.attention.query": "blocks/layer_{}/attention/query",
    "encoder.layer.{}.attention.attention.key": "blocks/layer_{}/attention/key",
    "encoder.layer.{}.attention.attention.value": "blocks/layer_{}/attention/value",
    "encoder.layer.{}.attention.output.dense": "blocks/layer_{}/attention/output",
    "encoder.layer.{}.intermediate.dense": "blocks/layer_{}/feed_forward/up",
    "encoder.layer.{}.output.dense": "blocks/layer_{}/feed_forward/down",
    "classifier": "output",
}
# Those whose shape changes, apart from kernels.
_TOKEN, _POSITIONS, _PATCHES = (
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection.weight",
)
_SINGLE = {
    _TOKEN: "class_token",
    _POSITIONS: "position_embedding/embedding",
    _PATCHES: "patch_embedding/dense/kernel",
    "embeddings.patch_embeddings.projection.bias": "patch_embedding/dense/bias",
}


def read_vit(folder: str | Path) -> Published:
    """Reads a checkpoint; nothing in it is run.

    Args:
        folder: with `config.json`, `model.safetensors` and, for what pixels are normalised by,
            `preprocessor_config.json`.

    Raises:
        DataError: if a file is missing or damaged, or the model is not a ViT that we can build.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    model = _model(config, folder / "config.json")
    found: dict[str, tuple[str, np.ndarray]] = {}
    unused = []
    for name, array in read_safetensors(folder).items():
        plain = name.removeprefix("vit.")
        path = _path(plain)
        if path is None:
            unused.append(name)
        else:
            found[path] = name, _laid_out(plain, array, model, folder)
    num_outputs = found["output/bias"][1].size if "output/bias" in found else 1
    ours = ViT(**model, num_outputs=num_outputs)
    try:
        ours.check()
    except ConfigError as error:
        raise DataError(f"{folder / 'config.json'} describes no model: {error}") from None
    image = jnp.zeros((1, ours.image_size, ours.image_size, model["channels"]))
    shapes = parameter_shapes(ours, _classified, image)
    require_complete(found, shapes, ("output",), folder)
    params = {
        path: converted(path, *found[path], shape, folder)
        for path, shape in shapes.items()
        if path in found
    }
    names = config.get("id2label") if "output/bias" in params else None
    names = names if isinstance(names, dict) else {}
    count = num_outputs if "output/bias" in params else 0
    labels = tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(count))
    preparation = _preparation(folder / "preprocessor_config.json")
    return Published(model, "image_classification", labels, params, unused, preparation)


def _classified(model: ViT, images: Any) -> Any:
    """Calls whatever has parameters."""
    return model.classify(images)


def _model(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """Fields of `config.model`, refusing what our model does not do."""
    if config.get("model_type", "vit") != "vit":
        raise DataError(f"{where} is of a model {config['model_type']!r}: expected 'vit'.")
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise DataError(f"{where} has the activation {activation!r}: it is not known here.")
    if not config.get("qkv_bias", True):
        raise DataError(f"{where} has no biases on queries, keys and values: ours has.")
    try:
        return {
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
        }
    except KeyError as error:
        raise DataError(f"{where} is incomplete: there is no {error.args[0]}.") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} holds what is no number: {error}.") from None


def _preparation(path: Path) -> dict[str, Any]:
    """Mean and standard deviation of pixels between 0 and 1; without a file, the usual ones."""
    if not path.exists():
        return {}
    content = read_json(path)
    found = {}
    for field, key in (("mean", "image_mean"), ("std", "image_std")):
        values = content.get(key)
        if values is not None:
            try:
                found[field] = tuple(float(value) for value in values)
            except (TypeError, ValueError):
                raise DataError(f"{path}: {key} is {values!r}: expected numbers.") from None
    return found


def _path(name: str) -> str | None:
    """Our path of an array; None if our model has no such thing."""
    if name in _SINGLE:
        return _SINGLE[name]
    module, _, kind = name.rpartition(".")
    number = re.search(r"\.layer\.(\d+)\.", module)
    general = re.sub(r"\.layer\.\d+\.", ".layer.{}.", module)
    for modules, kinds in ((_NORMS, _NORM_KINDS), (_LAYERS, _KINDS)):
        if general in modules and kind in kinds:
            return f"{modules[general].format(number[1] if number else '')}/{kinds[kind]}"
    return None


def _laid_out(name: str, array: np.ndarray, model: dict[str, Any], folder: Path) -> np.ndarray:
    """What stands in front of all patches without an axis for the batch; kernels as matrices."""
    axes = {_TOKEN: 3, _POSITIONS: 3, _PATCHES: 4}.get(name)
    if axes is None:
        return array
    if array.ndim != axes:
        raise DataError(f"{folder}: {name} has {array.ndim} axes: expected {axes}.")
    if name == _PATCHES:
        # Theirs is a convolution: [D, C, rows, columns]. A patch of ours is rows, columns, C.
        return array.transpose(0, 2, 3, 1).reshape(len(array), -1)
    return array[0]
