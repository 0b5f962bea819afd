"""BERT in the layout of the library `transformers`, and what RoBERTa shares with it."""

from collections.abc import Callable, Mapping, Set
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
import tokenizers
from jaxtyping import Array, Int
from tokenizers import decoders, models, normalizers, pre_tokenizers

from transformer.data.reading.content import read_bounded
from transformer.data.reading.text import decode_text
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.data.tokenizers.word_pieces import WordPieceTokenizer, vocabulary_of_lines
from transformer.errors import ConfigError, DataError
from transformer.interop.activations import activation, published_activation
from transformer.interop.encoder_configs import IRRELEVANT
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
from transformer.interop.layout import (
    Entry,
    Shape,
    entries,
    parameter_shapes,
    require_heads,
    require_sizes,
    vector,
)
from transformer.interop.side_files import (
    CONFIG,
    SETTINGS,
    SideFile,
    SideFiles,
    require_vocabulary,
)
from transformer.interop.tokenizers.encoders import (
    VOCABULARY,
    EncoderClass,
    default_names,
    library_model,
    no_tokenizer,
)
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
# The array and axis that show each size, for messages that name both.
_SIZES = (
    ("vocab_size", "embeddings.word_embeddings.weight", 0),
    ("hidden_size", "embeddings.word_embeddings.weight", 1),
    ("max_position_embeddings", "embeddings.position_embeddings.weight", 0),
    ("type_vocab_size", "embeddings.token_type_embeddings.weight", 0),
    ("intermediate_size", "encoder.layer.0.intermediate.dense.bias", 0),
)
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


class Kind(NamedTuple):
    """What differs between encoders in this layout.

    Attributes:
        name: the value of `model_type`, and the prefix of arrays.
        architecture: the beginning of the library's classes.
        vocab_size: the default of V.
        heads: maps the modules of heads to the published ones.
        bias: the bias of the output layer of tokens.
        decoder: the output layer of tokens, tied to the token table; its bias is written twice.
        head_activation: the activation of the masked-token head; None takes that of the layers.
        pad: the default id of the padding token, after which positions begin; None if they begin
            at 0.
        classifier: names in the head of text classifiers, mapped to those of other heads.
    """

    name: str
    architecture: str
    vocab_size: int
    heads: dict[str, str]
    bias: str
    decoder: str
    head_activation: str | None = None
    pad: int | None = None
    classifier: Mapping[str, str] = MappingProxyType({})


def _canonical(kind: Kind, name: str) -> str | None:
    """Adds the prefix that bare encoders leave out, and renames the oldest names."""
    if name.endswith("embeddings.position_ids"):
        return None
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    for theirs, ours in kind.classifier.items():
        name = name.replace(theirs, ours)
    bare = name.startswith(("embeddings.", "encoder.", "pooler."))
    name = f"{kind.name}.{name}" if bare else name
    return name.replace("qa_outputs.", "classifier.")


def _exported(kind: Kind, name: str, job: str) -> str:
    if job == "text_classification":
        for theirs, ours in kind.classifier.items():
            name = name.replace(ours, theirs)
    return name.replace("classifier.", "qa_outputs.") if job == "question_answering" else name


def _entries(kind: Kind, model: BERT) -> list[Entry]:
    tokens, depths = jnp.zeros((1, 1), jnp.int32), {"num_layers": model.num_layers}
    shapes = parameter_shapes(model, _use_all, tokens, depths=depths)
    modules = {ours: theirs.format(kind.name, "{}") for ours, theirs in _ENCODER.items()}
    others = {"masked_token/bias": vector("masked_token/bias", kind.bias, (model.vocab_size or 0,))}
    return entries(shapes, modules | kind.heads | {"output": "classifier"}, others)


def _use_all(model: BERT, tokens: Int[Array, "B T"]) -> None:
    """Calls every module that has parameters."""
    features = model(tokens)
    model.logits(model.masked(features, tokens))
    model.follows(features)
    model.output(features)


def _fields(kind: Kind, config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    config.irrelevant(IRRELEVANT)
    config.only(_ONLY)
    activated = activation(config, "hidden_act", "gelu")
    if f"{kind.name}.embeddings.word_embeddings.weight" not in shapes:
        raise DataError(
            f"{where.parent} holds no {kind.name}: there are no embeddings.word_embeddings."
        )
    usual = {"vocab_size": kind.vocab_size, **_DEFAULTS}
    said = {key: config.whole(key, value) for key, value in usual.items()}
    _require_sizes(kind.name, config, said, where, shapes)
    offset = 0
    if kind.pad is not None:
        offset = config.token("pad_token_id", kind.pad) + 1
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
        "head_activation": kind.head_activation,
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
    shown = ((key, said[key], f"{kind}.{name}", axis) for key, name, axis in _SIZES)
    require_sizes(where, shapes, shown)
    heads = ("num_attention_heads", said["num_attention_heads"])
    require_heads(where, heads, ("hidden_size", said["hidden_size"]))
    layers = {name.split(".")[3] for name in shapes if name.startswith(f"{kind}.encoder.layer.")}
    count = said["num_hidden_layers"]
    if count > len(layers) or ("num_hidden_layers" not in config and count != len(layers)):
        raise DataError(
            f"{where} has num_hidden_layers {count}: encoder.layer_{len(layers)} is missing."
        )


def _config(kind: Kind, trained: TrainedEncoder[BERT]) -> Json:
    model, paths, pad = trained.model, trained.paths, trained.tokenizer.pad
    if model.position_offset not in (0, pad + 1):
        raise ConfigError(
            f"config.model.position_offset is {model.position_offset}, and the tokenizer's padding "
            f"is token {pad}: in published models positions begin behind its number."
        )
    of_head = model.head_activation or model.activation
    needed = kind.head_activation or model.activation
    if "masked_token/bias" in paths and of_head != needed:
        raise ConfigError(
            f"config.model.head_activation is {of_head}, and published models of the kind "
            f"{kind.name} "
            f"have {needed} there: they would say something else."
        )
    names = {job: name for name, job in JOBS.items()}
    plain = "Model"
    if "masked_token/bias" in paths:
        plain = "ForPreTraining" if "next_sentence/kernel" in paths else "ForMaskedLM"
    suffix = names.get(trained.job, plain) if "output/kernel" in paths else plain
    return {
        "architectures": [kind.architecture + suffix],
        "model_type": kind.name,
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


def _tokenizer(files: SideFiles, folder: Path, names: dict[str, str]) -> tokenizers.Tokenizer:
    """BERT's tokenizer: word pieces, cleaned and split according to the settings."""
    given = library_model(files, folder, "WordPiece").get("vocab")
    path = folder / VOCABULARY
    if given is not None:
        vocabulary = require_vocabulary(given, folder / TOKENIZER_FILE)
    elif path.is_file():
        vocabulary = vocabulary_of_lines(decode_text(read_bounded(path), str(path)), path)
    else:
        raise no_tokenizer(folder)
    settings = files[SETTINGS]
    unknown = names.get("unk_token", "")
    if unknown not in vocabulary:
        raise DataError(
            f"{folder}: the vocabulary has no {unknown or 'token'} that stands for what it lacks: "
            f"say which does as unk_token in {SETTINGS}."
        )
    accents = settings.get("strip_accents")
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.flag("tokenize_chinese_chars", True),
        strip_accents=None if accents is None else settings.flag("strip_accents", False),
        lowercase=settings.flag("do_lower_case", True),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    return library


def family(
    kind: Kind,
    run: Callable[[Source, Published, int | None], RunParts],
    tokenizers: Mapping[str, EncoderClass],
    *,
    unnamed: bool = False,
) -> Family[BERT]:
    """The family of one kind.

    Args:
        kind: what is special about it.
        run: see `Family`.
        tokenizers: see `Family`.
        unnamed: whether a config without `model_type` may be of this kind.
    """
    return Family(
        kinds=(kind.name,),
        name="bert",
        model=BERT,
        fields=partial(_fields, kind),
        config=partial(_config, kind),
        entries=partial(_entries, kind),
        head=_head,
        run=run,
        beside=write_encoder_files,
        tokenizers=tokenizers,
        suits=lambda model: (kind.pad is not None) == (model.position_offset > 0),
        heads=("pooler", "masked_token", "next_sentence", "output"),
        canonical=partial(_canonical, kind),
        exported=lambda name, model, job: _exported(kind, name, job),
        copies=lambda model: {
            f"{kind.decoder}.weight": f"{kind.name}.embeddings.word_embeddings.weight",
            f"{kind.decoder}.bias": kind.bias,
        },
        unnamed=lambda config: unnamed and "type_vocab_size" in config,
    )


_BERT = Kind(
    name="bert",
    architecture="Bert",
    vocab_size=30522,
    heads={
        "masked_token/dense": "cls.predictions.transform.dense",
        "masked_token/norm": "cls.predictions.transform.LayerNorm",
        "next_sentence": "cls.seq_relationship",
    },
    bias="cls.predictions.bias",
    decoder="cls.predictions.decoder",
)
_NAMES = default_names(WordPieceTokenizer)
_CLASS = EncoderClass(_tokenizer, _NAMES, ("add_prefix_space",), separators=1, second_type=1)
# The oldest BERTs have no model_type.
FAMILIES = (
    family(
        _BERT,
        partial(encoder_run, "BertTokenizer"),
        {"BertTokenizer": _CLASS, "DistilBertTokenizer": _CLASS},
        unnamed=True,
    ),
)
