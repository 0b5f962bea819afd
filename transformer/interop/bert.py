"""BERT checkpoints in the layout of the library `transformers`: `config.json` and safetensors."""

import re
from collections.abc import Mapping
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
from transformer.models.bert import BERT

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
# What stands above the encoder, by the class that the checkpoint names, and our job for it.
_JOBS = {
    "BertForSequenceClassification": "text_classification",
    "BertForTokenClassification": "tagging",
    "BertForQuestionAnswering": "question_answering",
}
_DENSE = {"weight": "kernel", "bias": "bias"}
# Names of the oldest checkpoints last.
_NORM = {"weight": "scale", "bias": "bias", "gamma": "scale", "beta": "bias"}
# Theirs to ours, after `bert.` in front is gone; `{}` is the number of the layer.
_NORMS = {
    "embeddings.LayerNorm": "embedding_norm",
    "encoder.layer.{}.attention.output.LayerNorm": "blocks/layer_{}/attention_norm",
    "encoder.layer.{}.output.LayerNorm": "blocks/layer_{}/feed_forward_norm",
    "cls.predictions.transform.LayerNorm": "masked_token/norm",
}
_LAYERS = {
    "encoder.layer.{}.attention.self.query": "blocks/layer_{}/attention/query",
    "encoder.layer.{}.attention.self.key": "blocks/layer_{}/attention/key",
    "encoder.layer.{}.attention.self.value": "blocks/layer_{}/attention/value",
    "encoder.layer.{}.attention.output.dense": "blocks/layer_{}/attention/output",
    "encoder.layer.{}.intermediate.dense": "blocks/layer_{}/feed_forward/up",
    "encoder.layer.{}.output.dense": "blocks/layer_{}/feed_forward/down",
    "pooler.dense": "pooler",
    "cls.predictions.transform.dense": "masked_token/dense",
    "cls.seq_relationship": "next_sentence",
    "classifier": "output",
    "qa_outputs": "output",
}
_SINGLE = {
    "embeddings.word_embeddings.weight": "token_embedding/embedding",
    "embeddings.position_embeddings.weight": "position_embedding/embedding",
    "embeddings.token_type_embeddings.weight": "type_embedding/embedding",
    "cls.predictions.bias": "masked_token/bias",
}
# The output layer is the token table; its bias is written twice; positions are 0, 1, 2, ...
_COPIES = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_HEADS = ("pooler", "masked_token", "next_sentence", "output")
_CONSTANTS = ("embeddings.position_ids",)


def read_bert(folder: str | Path) -> Published:
    """Reads a checkpoint; nothing in it is run.

    Args:
        folder: with `config.json` and `model.safetensors`.

    Raises:
        DataError: if a file is missing or damaged, or the model is not a BERT that we can build.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    model = _model(config, folder)
    arrays = read_safetensors(folder)
    found: dict[str, tuple[str, np.ndarray]] = {}
    unused = []
    for name, array in arrays.items():
        plain = name.removeprefix("bert.")
        if plain in _CONSTANTS:
            continue
        if plain in _COPIES and _is_copy(plain, array, arrays, folder):
            continue
        path = _path(_COPIES.get(plain, plain))
        if path is None:
            unused.append(name)
        else:
            found[path] = name, array
    if "token_embedding/embedding" not in found:
        raise DataError(f"{folder} holds no BERT: there are no embeddings.word_embeddings.")
    num_outputs = found["output/bias"][1].size if "output/bias" in found else 1
    shapes = _shapes(model, num_outputs, folder)
    unused += [name for path, (name, _) in found.items() if path not in shapes]
    require_complete(found, shapes, _HEADS, folder)
    params = {
        path: converted(path, *found[path], shape, folder)
        for path, shape in shapes.items()
        if path in found
    }
    job, labels = _job(config, params)
    tokenizer = folder / "tokenizer_config.json"
    lowercase = (
        bool(read_json(tokenizer).get("do_lower_case", True)) if tokenizer.exists() else True
    )
    return Published(model, job, labels, params, unused, {"lowercase": lowercase})


def _model(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fields of `config.model`, refusing what our model does not do."""
    where = folder / "config.json"
    if config.get("model_type", "bert") != "bert":
        raise DataError(f"{where} is of a model {config['model_type']!r}: expected 'bert'.")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise DataError(
            f"{where} has position embeddings {config['position_embedding_type']!r}: only absolute "
            f"ones can be read."
        )
    if config.get("is_decoder"):
        raise DataError(f"{where} is of a decoder: only encoders can be read.")
    activation = config.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise DataError(f"{where} has the activation {activation!r}: it is not known here.")
    try:
        return {
            "vocab_size": int(config["vocab_size"]),
            "num_layers": int(config["num_hidden_layers"]),
            "num_heads": int(config["num_attention_heads"]),
            "width": int(config["hidden_size"]),
            "feed_forward_width": int(config["intermediate_size"]),
            "context": int(config["max_position_embeddings"]),
            "num_types": int(config.get("type_vocab_size", 2)),
            "activation": _ACTIVATIONS[activation],
            "norm_epsilon": float(config.get("layer_norm_eps", 1e-12)),
            "dropout_rate": float(config.get("hidden_dropout_prob", 0.1)),
        }
    except KeyError as error:
        raise DataError(f"{where} is incomplete: there is no {error.args[0]}.") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} holds what is no number: {error}.") from None


def _path(name: str) -> str | None:
    """Our path of an array; None if our model has no such thing."""
    if name in _SINGLE:
        return _SINGLE[name]
    module, _, kind = name.rpartition(".")
    number = re.search(r"\.layer\.(\d+)\.", module)
    general = re.sub(r"\.layer\.\d+\.", ".layer.{}.", module)
    for modules, kinds in ((_NORMS, _NORM), (_LAYERS, _DENSE)):
        if general in modules and kind in kinds:
            return f"{modules[general].format(number[1] if number else '')}/{kinds[kind]}"
    return None


def _shapes(model: dict[str, Any], num_outputs: int, folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters that our model can have, by path."""
    ours = BERT(**model, num_outputs=num_outputs)
    try:
        ours.check()
    except ConfigError as error:
        raise DataError(f"{folder / 'config.json'} describes no model: {error}") from None
    return parameter_shapes(ours, _use_all, jnp.zeros((1, 1), jnp.int32))


def _use_all(model: BERT, tokens: Any) -> None:
    """Calls whatever has parameters."""
    features = model(tokens)
    model.logits(model.masked(features, tokens))
    model.follows(features)
    model.output(features)


def _is_copy(name: str, array: np.ndarray, arrays: Mapping[str, np.ndarray], folder: Path) -> bool:
    """Whether the original is there too; an output layer that is not the token table is refused."""
    found = [other for other in (_COPIES[name], f"bert.{_COPIES[name]}") if other in arrays]
    for original in found:
        if not np.array_equal(arrays[original], array):
            raise DataError(f"{folder}: {name} is not {original}, and only tied layers are known.")
    return bool(found)


def _job(config: dict[str, Any], params: dict[str, np.ndarray]) -> tuple[str, tuple[str, ...]]:
    """What the head is for, and the names of its outputs."""
    architecture = str(next(iter(config.get("architectures") or []), ""))
    if "output/kernel" not in params or architecture not in _JOBS:
        return "masked_lm", ()
    job, count = _JOBS[architecture], params["output/kernel"].shape[-1]
    if job == "question_answering":
        return job, ("start", "end")
    names = config.get("id2label")
    names = names if isinstance(names, dict) else {}
    return job, tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(count))
