"""BERT and RoBERTa in the layout of the library `transformers`."""

import functools
from collections.abc import Set
from functools import partial
from pathlib import Path
from typing import cast

import jax.numpy as jnp
from jaxtyping import Array, Int

from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.errors import ConfigError, DataError
from transformer.interop.activations import activation, published_activation
from transformer.interop.encoder_runs import (
    JOBS,
    TrainedEncoder,
    encoder_head,
    encoder_run,
    problem_type,
    write_encoder_files,
)
from transformer.interop.family import (
    Family,
    Head,
    Published,
    RunParts,
    Source,
    label_names,
)
from transformer.interop.layout import Entry, Shape, entries, parameter_shapes, vector
from transformer.interop.side_files import CONFIG, SideFile, SideFiles
from transformer.models.bert import BERT
from transformer.types import Json

# Default sizes of missing keys in the classes BertConfig and RobertaConfig.
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_VOCABULARIES = {"bert": 30522, "roberta": 50265}
# The array and axis that show each size, for messages that name both.
_SIZES = (
    ("vocab_size", "embeddings.word_embeddings.weight", 0),
    ("hidden_size", "embeddings.word_embeddings.weight", 1),
    ("max_position_embeddings", "embeddings.position_embeddings.weight", 0),
    ("type_vocab_size", "embeddings.token_type_embeddings.weight", 0),
    ("intermediate_size", "encoder.layer.0.intermediate.dense.bias", 0),
)
_WRITING = (
    "bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample "
    "early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty "
    "forced_bos_token_id forced_eos_token_id length_penalty max_length min_length "
    "no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix "
    "remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens "
    "task_specific_params temperature top_k top_p typical_p"
)
IRRELEVANT = {
    **dict.fromkeys(_WRITING.split(), "of models that write"),
    **dict.fromkeys(
        ("attention_probs_dropout_prob", "classifier_dropout"),
        "of training, where hidden_dropout_prob is the rate of all",
    ),
    **dict.fromkeys(
        ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
        "the tokenizer says it",
    ),
    **dict.fromkeys(
        ("attn_implementation", "_attn_implementation", "use_bfloat16", "torchscript"), "speed"
    ),
    **dict.fromkeys(("finetuning_task", "model_name", "output_past"), "where it came from"),
    **dict.fromkeys(
        (
            "directionality",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
        ),
        "of the code before",
    ),
}
# Keys with a single supported value.
_ONLY: dict[str, object] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
}
_ENCODER = {
    "embedding_norm": "{}.embeddings.LayerNorm",
    "blocks/{}/attention/query": "{}.encoder.layer.{}.attention.self.query",
    "blocks/{}/attention/key": "{}.encoder.layer.{}.attention.self.key",
    "blocks/{}/attention/value": "{}.encoder.layer.{}.attention.self.value",
    "blocks/{}/attention/output": "{}.encoder.layer.{}.attention.output.dense",
    "blocks/{}/attention_norm": "{}.encoder.layer.{}.attention.output.LayerNorm",
    "blocks/{}/feed_forward/up": "{}.encoder.layer.{}.intermediate.dense",
    "blocks/{}/feed_forward/down": "{}.encoder.layer.{}.output.dense",
    "blocks/{}/feed_forward_norm": "{}.encoder.layer.{}.output.LayerNorm",
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
        # Never published; listed so that every parameter has a name.
        "next_sentence": "next_sentence",
    },
}
_BIAS = {"bert": "cls.predictions.bias", "roberta": "lm_head.bias"}
# The output layer is tied to the token table; its bias is written twice.
_DECODER = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder"}
# The activation of RoBERTa's masked-token head, whatever its layers use.
_ROBERTA_HEAD = "gelu"
# RoBERTa's positions begin after the id of its padding token, which is this one.
_ROBERTA_PAD = 1


def _canonical(kind: str, name: str) -> str | None:
    """Adds the prefix that bare encoders leave out, and renames the oldest names."""
    if name.endswith("embeddings.position_ids"):
        return None
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    if kind == "roberta":
        # The text classifier has a dense layer in front, which is our pooler.
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


@functools.lru_cache(maxsize=8)
def _entries(kind: str, model: BERT) -> list[Entry]:
    tokens, depths = jnp.zeros((1, 1), jnp.int32), {"num_layers": model.num_layers}
    shapes = parameter_shapes(model, _use_all, tokens, depths=depths)
    modules = {ours: theirs.format(kind, "{}") for ours, theirs in _ENCODER.items()}
    others = {
        "masked_token/bias": vector("masked_token/bias", _BIAS[kind], (model.vocab_size or 0,))
    }
    return entries(shapes, modules | _HEADS[kind] | {"output": "classifier"}, others)


def _use_all(model: BERT, tokens: Int[Array, "B T"]) -> None:
    """Calls every module that has parameters."""
    features = model(tokens)
    model.logits(model.masked(features, tokens))
    model.follows(features)
    model.output(features)


def _fields(kind: str, config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    config.irrelevant(IRRELEVANT)
    config.only(_ONLY)
    activated = activation(config, "hidden_act", "gelu")
    if f"{kind}.embeddings.word_embeddings.weight" not in shapes:
        raise DataError(f"{where.parent} holds no {kind}: there are no embeddings.word_embeddings.")
    usual = {"vocab_size": _VOCABULARIES[kind], **_DEFAULTS}
    said = {key: config.whole(key, value) for key, value in usual.items()}
    _require_sizes(kind, config, said, where, shapes)
    offset = 0
    if kind == "roberta":
        offset = _pad(config) + 1
    else:
        config.irrelevant({"pad_token_id": "a row of the table like any other"})
    outputs = shapes.get("classifier.bias")
    return {
        "vocab_size": said["vocab_size"],
        "num_outputs": outputs[0] if outputs else None,
        "num_layers": said["num_hidden_layers"],
        "num_heads": said["num_attention_heads"],
        "width": said["hidden_size"],
        "feed_forward_width": said["intermediate_size"],
        "context": said["max_position_embeddings"] - offset,
        "position_offset": offset,
        "num_types": said["type_vocab_size"],
        "activation": activated,
        "head_activation": _ROBERTA_HEAD if kind == "roberta" else None,
        "norm_epsilon": config.number("layer_norm_eps", 1e-12),
        "dropout_rate": config.number("hidden_dropout_prob", 0.1),
    }


def _require_sizes(
    kind: str, config: SideFile, said: dict[str, int], where: Path, shapes: dict[str, Shape]
) -> None:
    """Refuses arrays whose size differs from the config.

    Raises:
        DataError: names the key of the first.
    """
    for key, name, axis in _SIZES:
        shape = shapes.get(f"{kind}.{name}")
        if shape is not None and len(shape) > axis and shape[axis] != said[key]:
            wanted = [said[key] if place == axis else size for place, size in enumerate(shape)]
            raise DataError(
                f"{where} has {key} {said[key]}{'' if key in config else ', its default'}: "
                f"{kind}.{name} would be {wanted}, and is {list(shape)}."
            )
    heads = said["num_attention_heads"]
    if said["hidden_size"] % heads:
        raise DataError(
            f"{where} has num_attention_heads {heads} (config.model.num_heads): heads must divide "
            f"the width, hidden_size {said['hidden_size']}."
        )
    layers = {name.split(".")[3] for name in shapes if name.startswith(f"{kind}.encoder.layer.")}
    count = said["num_hidden_layers"]
    if count > len(layers) or ("num_hidden_layers" not in config and count != len(layers)):
        raise DataError(
            f"{where} has num_hidden_layers {count}: encoder.layer_{len(layers)} is missing."
        )


def _pad(config: SideFile) -> int:
    """The id of RoBERTa's padding token, after which positions begin."""
    return config.token("pad_token_id", _ROBERTA_PAD)


def _config(kind: str, trained: TrainedEncoder[BERT]) -> Json:
    model, paths, pad = trained.model, trained.paths, trained.tokenizer.pad
    if model.position_offset not in (0, pad + 1):
        raise ConfigError(
            f"config.model.position_offset is {model.position_offset}, and the tokenizer's padding "
            f"is token {pad}: in published models positions begin behind its number."
        )
    of_head = model.head_activation or model.activation
    needed = _ROBERTA_HEAD if kind == "roberta" else model.activation
    if "masked_token/bias" in paths and of_head != needed:
        raise ConfigError(
            f"config.model.head_activation is {of_head}, and published models of the kind {kind} "
            f"have {needed} there: they would say something else."
        )
    names = {job: name for name, job in JOBS.items()}
    plain = "Model"
    if "masked_token/bias" in paths:
        plain = "ForPreTraining" if "next_sentence/kernel" in paths else "ForMaskedLM"
    suffix = names.get(trained.job, plain) if "output/kernel" in paths else plain
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
        "hidden_act": published_activation(model.activation, "gelu_new"),
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout_prob": model.dropout_rate,
        "attention_probs_dropout_prob": model.dropout_rate,
        "pad_token_id": pad,
        **problem_type(trained),
        **label_names(trained.labels),
    }


def _head(files: SideFiles, paths: Set[str]) -> Head:
    """The job of the head, and the names of its outputs."""
    if "masked_token/bias" in paths:
        # Kernel and bias of the output layer are both tied; neither is in the files.
        files[CONFIG].only({"tie_word_embeddings": True})
    else:
        files[CONFIG].irrelevant({"tie_word_embeddings": "there is no output layer of tokens"})
    return encoder_head(files, has_output="output/kernel" in paths)


def _roberta_run(source: Source, published: Published, max_length: int | None) -> RunParts:
    """The run of a RoBERTa, whose positions begin after the id of its padding token.

    Raises:
        DataError: if the tokenizer's padding token has another id.
    """
    run = encoder_run("RobertaTokenizer", source, published, max_length)
    offset, pad = published.model["position_offset"], cast("EncoderTokenizer", run.tokenizer).pad
    if offset != pad + 1:
        raise DataError(
            f"{source.config.where} has pad_token_id {offset - 1}, and the tokenizer's padding is "
            f"token {pad}: positions begin behind its number."
        )
    return run


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
        config=lambda trained: _config(kind, trained),
        entries=lambda model: _entries(kind, model),
        head=_head,
        run=_roberta_run if kind == "roberta" else partial(encoder_run, "BertTokenizer"),
        beside=write_encoder_files,
        suits=lambda model: (kind == "roberta") == (model.position_offset > 0),
        heads=("pooler", "masked_token", "next_sentence", "output"),
        canonical=canonical,
        exported=lambda name, model, job: _exported(kind, name, job),
        copies=lambda model: {
            f"{decoder}.weight": f"{kind}.embeddings.word_embeddings.weight",
            f"{decoder}.bias": _BIAS[kind],
        },
        # The oldest BERTs have no model_type.
        unnamed=lambda config: kind == "bert" and "type_vocab_size" in config,
    )


FAMILIES = (_family("bert"), _family("roberta"))
