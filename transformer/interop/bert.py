"""BERT and RoBERTa in the layout of the library `transformers`."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from transformer.errors import ConfigError, DataError
from transformer.interop.layout import Entry, Shape, entries, vector
from transformer.interop.published import (
    Family,
    Head,
    label_names,
    parameter_shapes,
    theirs_of,
)
from transformer.interop.side_files import CONFIG, SideFile, SideFiles
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
    "ForSequenceClassification": "text_classification",
    "ForTokenClassification": "tagging",
    "ForQuestionAnswering": "question_answering",
}
_ENCODER = {
    "embedding_norm": "{}.embeddings.LayerNorm",
    "blocks/layer_{}/attention/query": "{}.encoder.layer.{}.attention.self.query",
    "blocks/layer_{}/attention/key": "{}.encoder.layer.{}.attention.self.key",
    "blocks/layer_{}/attention/value": "{}.encoder.layer.{}.attention.self.value",
    "blocks/layer_{}/attention/output": "{}.encoder.layer.{}.attention.output.dense",
    "blocks/layer_{}/attention_norm": "{}.encoder.layer.{}.attention.output.LayerNorm",
    "blocks/layer_{}/feed_forward/up": "{}.encoder.layer.{}.intermediate.dense",
    "blocks/layer_{}/feed_forward/down": "{}.encoder.layer.{}.output.dense",
    "blocks/layer_{}/feed_forward_norm": "{}.encoder.layer.{}.output.LayerNorm",
    "pooler": "{}.pooler.dense",
    "token_embedding": "{}.embeddings.word_embeddings",
    "position_embedding": "{}.embeddings.position_embeddings",
    "type_embedding": "{}.embeddings.token_type_embeddings",
}
_HEADS = {
    "bert": {
        "masked_token/dense": "cls.predictions.transform.dense",
        "masked_token/norm": "cls.predictions.transform.LayerNorm",
        "next_sentence": "cls.seq_relationship",
    },
    "roberta": {
        "masked_token/dense": "lm_head.dense",
        "masked_token/norm": "lm_head.layer_norm",
        # Never published; only here so that every parameter has a name.
        "next_sentence": "next_sentence",
    },
}
_BIAS = {"bert": "cls.predictions.bias", "roberta": "lm_head.bias"}
# The output layer is the token table; its bias is written twice.
_DECODER = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder"}
# RoBERTa's positions begin behind the number of its padding token, which is this one.
_ROBERTA_PAD = 1


def _canonical(kind: str, name: str) -> str | None:
    """The name with the prefix that encoders alone leave out; newer names of the oldest ones."""
    if name.endswith("embeddings.position_ids"):
        return None
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    if kind == "roberta":
        # The class of a text has a dense layer of its own in front, which is a pooler.
        name = name.replace("classifier.dense.", "roberta.pooler.dense.")
        name = name.replace("classifier.out_proj.", "classifier.")
    return f"{kind}.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _exported(kind: str, name: str, job: str) -> str:
    if kind == "roberta" and job == "text_classification":
        name = name.replace("roberta.pooler.dense.", "classifier.dense.")
        return name.replace("classifier.weight", "classifier.out_proj.weight").replace(
            "classifier.bias", "classifier.out_proj.bias"
        )
    return name.replace("classifier.", "qa_outputs.") if job == "question_answering" else name


def _entries(kind: str, model: BERT) -> list[Entry]:
    shapes = parameter_shapes(model, _use_all, jnp.zeros((1, 1), jnp.int32))
    modules = {ours: theirs.format(kind, "{}") for ours, theirs in _ENCODER.items()}
    others = {
        "masked_token/bias": vector("masked_token/bias", _BIAS[kind], (model.vocab_size or 0,))
    }
    return entries(shapes, modules | _HEADS[kind] | {"output": "classifier"}, others)


def _use_all(model: BERT, tokens: Any) -> None:
    """Calls whatever has parameters."""
    features = model(tokens)
    model.logits(model.masked(features, tokens))
    model.follows(features)
    model.output(features)


def _fields(kind: str, config: SideFile, where: Path, shapes: dict[str, Shape]) -> dict[str, Any]:
    """Fields of `config.model`, refusing what our model does not do."""
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
    if f"{kind}.embeddings.word_embeddings.weight" not in shapes:
        raise DataError(f"{where.parent} holds no {kind}: there are no embeddings.word_embeddings.")
    offset = int(config.get("pad_token_id", _ROBERTA_PAD)) + 1 if kind == "roberta" else 0
    outputs = shapes.get("classifier.bias")
    return {
        "vocab_size": int(config["vocab_size"]),
        "num_outputs": outputs[0] if outputs else None,
        "num_layers": int(config["num_hidden_layers"]),
        "num_heads": int(config["num_attention_heads"]),
        "width": int(config["hidden_size"]),
        "feed_forward_width": int(config["intermediate_size"]),
        "context": int(config["max_position_embeddings"]) - offset,
        "position_offset": offset,
        "num_types": int(config.get("type_vocab_size", 2)),
        "activation": _ACTIVATIONS[activation],
        "norm_epsilon": float(config.get("layer_norm_eps", 1e-12)),
        "dropout_rate": float(config.get("hidden_dropout_prob", 0.1)),
    }


def _config(kind: str, model: BERT, head: Head, paths: Set[str]) -> dict[str, Any]:
    pad = head.preparation.get("pad", max(0, model.position_offset - 1))
    if model.position_offset not in (0, pad + 1):
        raise ConfigError(
            f"config.model.position_offset is {model.position_offset}, and the tokenizer's padding "
            f"is token {pad}: in published models positions begin behind its number."
        )
    names = {job: name for name, job in _JOBS.items()}
    plain = "Model"
    if "masked_token/bias" in paths:
        plain = "ForPreTraining" if "next_sentence/kernel" in paths else "ForMaskedLM"
    suffix = names.get(head.job, plain) if "output/kernel" in paths else plain
    return {
        "architectures": [{"bert": "Bert", "roberta": "Roberta"}[kind] + suffix],
        "model_type": kind,
        "vocab_size": model.vocab_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "hidden_size": model.width,
        "intermediate_size": model.feed_forward_width or 4 * model.width,
        "max_position_embeddings": model.context + model.position_offset,
        "type_vocab_size": model.num_types,
        "hidden_act": theirs_of(_ACTIVATIONS, model.activation),
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout_prob": model.dropout_rate,
        "attention_probs_dropout_prob": model.dropout_rate,
        "pad_token_id": pad,
        **label_names(head.outputs or ()),
    }


def _head(files: SideFiles, paths: Set[str]) -> Head:
    """What the head is for, and the names of its outputs."""
    lowercase = files["tokenizer_config.json"].get("do_lower_case", True)
    preparation = {"lowercase": bool(lowercase)}
    architecture = str(next(iter(files[CONFIG].get("architectures") or []), ""))
    jobs = [job for name, job in _JOBS.items() if architecture.endswith(name)]
    if "output/kernel" not in paths or not jobs:
        return Head("masked_lm", (), preparation)
    if jobs[0] == "question_answering":
        return Head(jobs[0], ("start", "end"), preparation)
    return Head(jobs[0], None, preparation)


def _family(kind: str) -> Family:
    decoder = _DECODER[kind]

    def canonical(name: str) -> str | None:
        found = _canonical(kind, name)
        return found and found.replace("qa_outputs.", "classifier.")

    return Family(
        kinds=(kind,),
        name="bert",
        model=BERT,
        fields=lambda *arguments: _fields(kind, *arguments),
        config=lambda *arguments: _config(kind, *arguments),
        entries=lambda model: _entries(kind, model),
        head=_head,
        suits=lambda model: (kind == "roberta") == (model.position_offset > 0),
        heads=("pooler", "masked_token", "next_sentence", "output"),
        canonical=canonical,
        exported=lambda name, model, job: _exported(kind, name, job),
        copies=lambda model: {
            f"{decoder}.weight": f"{kind}.embeddings.word_embeddings.weight",
            f"{decoder}.bias": _BIAS[kind],
        },
    )


BERT_FAMILY = _family("bert")
ROBERTA = _family("roberta")
