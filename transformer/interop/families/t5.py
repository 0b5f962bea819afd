"""T5 in the layout of the library `transformers`, versions 1.0 and 1.1."""

from pathlib import Path

from transformer.data.reading import bounds
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.data.tokenizers.sentences import LibrarySentenceTokenizer
from transformer.errors import ConfigError, DataError
from transformer.interop.activations import ACTIVATIONS, published_activation
from transformer.interop.family import Family, Head, Published, RunParts, Source
from transformer.interop.layout import (
    Entry,
    Shape,
    entries,
    require_counts,
    require_sizes,
)
from transformer.interop.sentence_runs import (
    TrainedWriter,
    longest_source,
    sentence_run,
    sentence_shapes,
    write_sentence_files,
)
from transformer.interop.side_files import SideFile
from transformer.interop.tokenizers.sentence_settings import SENTENCEPIECE
from transformer.interop.tokenizers.t5 import read_t5_tokenizer
from transformer.models.t5 import T5
from transformer.types import Facts, Json

# Keys that do not affect outputs, and why.
_IRRELEVANT = {
    "architectures": "arrays say what there is",
    "classifier_dropout": "of another head",
    "id2label": "of another head",
    "label2id": "of another head",
    "problem_type": "of another head",
    "n_positions": "relative positions have no end",
    "output_past": "speed",
    "pad_token_id": "padding is masked",
}
_BEGIN = "decoder_start_token_id"
# Maximum number of tokens of a target in training.
_MAX_TARGET = 128
_PARTS = {"query": "q", "key": "k", "value": "v", "output": "o"}


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    config.irrelevant(_IRRELEVANT)
    config.only({"is_encoder_decoder": True, "is_decoder": False})
    config.same({"hidden_size": "d_model", "num_hidden_layers": "num_layers"})
    config.same({"num_attention_heads": "num_heads", "head_dim": "d_kv"})
    kind = config.text("feed_forward_proj", "relu")
    gate, _, activation = kind.rpartition("-")
    if kind == "gated-gelu":
        # The only name that means another activation than it says.
        activation = "gelu_new"
    # Newer files repeat this in another key, which takes precedence.
    named, activation = activation, config.text("dense_act_fn", activation)
    gated = config.flag("is_gated_act", gate == "gated")
    if gate not in ("", "gated") or not {named, activation} <= ACTIVATIONS.keys():
        raise DataError(
            f"{where} has feed_forward_proj {kind!r} and dense_act_fn {activation!r}: such a "
            f"feed-forward layer is not known here."
        )
    if gated != any(name.endswith(".wi_0.weight") for name in shapes) and shapes:
        raise DataError(
            f"{where} has feed_forward_proj {kind!r} and is_gated_act {gated!r}, and the arrays "
            f"are of a layer that is {'not ' * gated}gated."
        )
    num_layers = config.whole("num_layers", 6)
    decoder_layers = config.whole_or_none("num_decoder_layers")
    # Newer files always say that weights are tied; another key holds the real value.
    tied = config.get("tie_word_embeddings") is None or config.flag("tie_word_embeddings", True)
    scaled = config.flag("scale_decoder_outputs", tied)
    begin = "pad_token_id" if config.get(_BEGIN) is None else _BEGIN
    found = {
        "vocab_size": config.whole("vocab_size", 32128),
        "num_encoder_layers": num_layers,
        "num_decoder_layers": num_layers if decoder_layers is None else decoder_layers,
        "num_heads": config.whole("num_heads", 8),
        "head_dim": config.whole("d_kv", 64),
        "width": config.whole("d_model", 512),
        "feed_forward_width": config.whole("d_ff", 2048),
        "gated": gated,
        "activation": ACTIVATIONS[activation],
        "tie_embeddings": scaled,
        "num_buckets": config.whole("relative_attention_num_buckets", 32),
        "max_distance": config.whole("relative_attention_max_distance", 128),
        "norm_epsilon": config.number("layer_norm_epsilon", 1e-6),
        "dropout_rate": config.fraction("dropout_rate", 0.1),
        "begin_id": config.whole_or_none(begin, 0, least=0, most=bounds.TOKENS - 1) or 0,
    }
    _require_sizes(found, where, shapes)
    return found


def _require_sizes(fields: Facts, where: Path, shapes: dict[str, Shape]) -> None:
    """Refuses arrays whose sizes differ from the config."""
    heads, block = fields["num_heads"], "encoder.block.0.layer"
    query, bias = (f"{block}.0.SelfAttention.{x}.weight" for x in ("q", "relative_attention_bias"))
    sizes = (
        ("vocab_size", fields["vocab_size"], "shared.weight", 0),
        ("d_model", fields["width"], "shared.weight", 1),
        ("num_heads * d_kv", heads * fields["head_dim"], query, 0),
        ("relative_attention_num_buckets", fields["num_buckets"], bias, 0),
        ("num_heads", heads, bias, 1),
        ("d_ff", fields["feed_forward_width"], f"{block}.1.DenseReluDense.wo.weight", 1),
    )
    require_sizes(where, shapes, sizes)
    counts = {
        "encoder.block.": ("num_layers", fields["num_encoder_layers"]),
        "decoder.block.": ("num_decoder_layers", fields["num_decoder_layers"]),
    }
    require_counts(where, shapes, counts)


def _config(trained: TrainedWriter[T5]) -> Json:
    """Writes what `_fields` reads."""
    model = trained.model
    activation = published_activation(model.activation, "gelu_new")
    if model.gated:
        activation = "gated-gelu" if activation == "gelu_new" else f"gated-{activation}"
    if model.gated and model.activation == "gelu":
        raise ConfigError(
            "config.model.activation is 'gelu' in a gated layer, which published models call "
            "what is 'gelu_tanh' here: they have no name for the exact one."
        )
    end = trained.tokenizer.end
    begin = end if model.begin_id is None else model.begin_id
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": model.vocab_size,
        "num_layers": model.num_encoder_layers,
        "num_decoder_layers": model.num_decoder_layers,
        "num_heads": model.num_heads,
        "d_kv": model.head_width(),
        "d_model": model.width,
        "d_ff": model.feed_forward_width,
        "feed_forward_proj": activation,
        "tie_word_embeddings": model.tie_embeddings,
        "relative_attention_num_buckets": model.num_buckets,
        "relative_attention_max_distance": model.max_distance,
        "layer_norm_epsilon": model.norm_epsilon,
        "dropout_rate": model.dropout_rate,
        "decoder_start_token_id": begin,
        "pad_token_id": begin,
        "eos_token_id": end,
    }


def _entries(model: T5) -> list[Entry]:
    return entries(sentence_shapes(model), _modules(model))


def _modules(model: T5) -> dict[str, str]:
    """Maps our modules to the published ones, which number a layer's branches."""
    found = {"token_embedding": "shared", "output": "lm_head"}
    branches = {
        "encoder": {"attention": "SelfAttention", "feed_forward": "DenseReluDense"},
        "decoder": {
            "attention": "SelfAttention",
            "cross_attention": "EncDecAttention",
            "feed_forward": "DenseReluDense",
        },
    }
    feed_forward = {"gate": "wi_0", "up": "wi_1" if model.gated else "wi", "down": "wo"}
    for stack, names in branches.items():
        found[f"{stack}_norm"] = f"{stack}.final_layer_norm"
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias"
        found[f"{stack}_positions"] = f"{stack}.{bias}"
        for number, (ours, theirs) in enumerate(names.items()):
            place = f"{stack}.block.{{}}.layer.{number}"
            found[f"{stack}/{{}}/{ours}_norm"] = f"{place}.layer_norm"
            parts = feed_forward if ours == "feed_forward" else _PARTS
            for part, name in parts.items():
                found[f"{stack}/{{}}/{ours}/{part}"] = f"{place}.{theirs}.{name}"
    return found


def _copies(model: T5) -> dict[str, str]:
    """The shared token table, which files hold up to four times."""
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    if model.tie_embeddings:
        copies.append("lm_head.weight")
    return dict.fromkeys(copies, "shared.weight")


def _stand_ins(model: T5) -> dict[str, str]:
    """If there is no output layer, the token table takes its place, scaled or not."""
    return {} if model.tie_embeddings else {"lm_head.weight": "shared.weight"}


def _run(source: Source, published: Published, max_length: int | None) -> RunParts:
    """The run of a model from texts to texts; inputs include their prefixes.

    Raises:
        DataError: if there is no tokenizer.
    """
    folder, files = source.where, source.files
    there = [name for name in (TOKENIZER_FILE, SENTENCEPIECE) if (folder / name).is_file()]
    if source.tokenizer is None and not there:
        raise DataError(f"{folder} has neither a {TOKENIZER_FILE} nor a {SENTENCEPIECE}.")
    text = read_t5_tokenizer(folder, files, source.tokenizer, published.model["vocab_size"])
    tokenizer = LibrarySentenceTokenizer(parse_tokenizer_json(text, folder))
    longest = longest_source(source, max_length, None)
    # The settings of the search include the length of outputs.
    lengths = {"max_length": longest, "max_target_length": max(2, min(_MAX_TARGET, longest))}
    return sentence_run(source, tokenizer, None, prefix="", **lengths)


FAMILIES = (
    Family(
        kinds=("t5",),
        name="t5",
        model=T5,
        fields=_fields,
        config=_config,
        entries=_entries,
        head=lambda files, paths: Head("text_to_text", ()),
        run=_run,
        beside=write_sentence_files,
        copies=_copies,
        stand_ins=_stand_ins,
        # Version 1.0 stored relative positions for cross-attention, which nothing used.
        not_ours=r"EncDecAttention\.relative_attention_bias\.weight$",
    ),
)
