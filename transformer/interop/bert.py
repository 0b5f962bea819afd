"""BERT checkpoints in the layout of the library `transformers`: `config.json` and safetensors."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer.errors import DataError
from transformer.interop.safetensors_files import read_safetensors

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
_COPIES = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
_CONSTANTS = ("embeddings.position_ids",)


class Published(NamedTuple):
    """A published checkpoint.

    Attributes:
        model: fields of `config.model`.
        job: the name of the task that its head is for.
        labels: names of the head's outputs; empty without a head of its own.
        lowercase: whether its tokenizer lowercases, as far as the files say.
        params: parameters by path.
        unused: names of arrays that have no place in our model.
    """

    model: dict[str, Any]
    job: str
    labels: tuple[str, ...]
    lowercase: bool
    params: dict[str, np.ndarray]
    unused: list[str]


def read_bert(folder: str | Path) -> Published:
    """Reads a checkpoint; nothing in it is run.

    Args:
        folder: with `config.json` and `model.safetensors`.

    Raises:
        DataError: if a file is missing or damaged, or the model is not a BERT that we can build.
    """
    folder = Path(folder)
    config = _json(folder / "config.json")
    model = _model(config, folder)
    arrays = read_safetensors(folder)
    params: dict[str, np.ndarray] = {}
    unused = []
    for name, array in arrays.items():
        plain = name.removeprefix("bert.")
        if plain in _CONSTANTS:
            continue
        if plain in _COPIES:
            _check_copy(plain, array, arrays, folder)
            continue
        path = _path(plain)
        if path is None:
            unused.append(name)
        else:
            params[path] = _converted(path, array, model)
    if "token_embedding/embedding" not in params:
        raise DataError(f"{folder} holds no BERT: there are no embeddings.word_embeddings.")
    job, labels = _job(config, params)
    tokenizer = folder / "tokenizer_config.json"
    lowercase = bool(_json(tokenizer).get("do_lower_case", True)) if tokenizer.exists() else True
    return Published(model, job, labels, lowercase, params, unused)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is no JSON object.")
    return content


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
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
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
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} is incomplete: {error}.") from None


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


def _converted(path: str, array: np.ndarray, model: dict[str, Any]) -> np.ndarray:
    """An array in our shape: kernels have their inputs first, heads an axis of their own."""
    array = array.astype(np.float32)
    heads = model["num_heads"]
    if path.endswith("/kernel"):
        array = array.T
    if re.search(r"attention/(query|key|value)/", path):
        return array.reshape(*array.shape[:-1], heads, -1)
    if path.endswith("attention/output/kernel"):
        return array.reshape(heads, -1, array.shape[-1])
    return array


def _check_copy(name: str, array: np.ndarray, arrays: dict[str, np.ndarray], folder: Path) -> None:
    """Refuses an output layer that is not the token table: ours is."""
    original = {
        "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }[name]
    for candidate in (original, f"bert.{original}"):
        if candidate in arrays and not np.array_equal(arrays[candidate], array):
            raise DataError(f"{folder}: {name} is not {candidate}, and only tied layers are known.")


def _job(config: dict[str, Any], params: dict[str, np.ndarray]) -> tuple[str, tuple[str, ...]]:
    """What the head is for, and the names of its outputs."""
    architecture = next(iter(config.get("architectures") or []), "")
    if "output/kernel" not in params or architecture not in _JOBS:
        return "masked_lm", ()
    job, count = _JOBS[architecture], params["output/kernel"].shape[-1]
    if job == "question_answering":
        return job, ("start", "end")
    names = config.get("id2label") or {}
    return job, tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(count))
