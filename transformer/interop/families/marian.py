"""Marian in the layout of the library `transformers`, such as the translators of OPUS-MT.

They are encoder-decoders as in Vaswani et al. 2017, except for the order of sines and cosines, the
activation, a bias of the output layer and the token that begins outputs.
"""

from collections.abc import Mapping
from pathlib import Path

from transformer.data.tokenizers.kinds.marian import (
    FILES,
    VOCABULARY_FILE,
    Added,
    MarianTokenizer,
    MarianTokens,
)
from transformer.errors import DataError
from transformer.interop.activations import activation, published_activation
from transformer.interop.family import Family, Head, Published, RunParts, Source, require_known
from transformer.interop.layout import (
    Entry,
    Shape,
    entries,
    require_counts,
    require_sizes,
    single,
)
from transformer.interop.sentence_runs import (
    TrainedWriter,
    longest_source,
    sentence_run,
    sentence_shapes,
    write_sentence_files,
)
from transformer.interop.side_files import CONFIG, SETTINGS, SideFile, SideFiles, read_vocabulary
from transformer.interop.tokenizers.added import read_added_tokens
from transformer.interop.tokenizers.sentence_settings import IRRELEVANT, USUAL
from transformer.models.vaswani import Vaswani
from transformer.types import Facts, Json

# Options that our model lacks: keys and their only supported value.
_ONLY = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "static_position_embeddings": True,
    "normalize_before": False,
    "normalize_embedding": False,
    "add_final_layer_norm": False,
}
# Keys that do not affect outputs, and why; and keys that do not with these values.
_IRRELEVANT = {
    "architectures": "arrays say what there is",
    "classif_dropout": "of another head",
    "classifier_dropout": "of another head",
    "encoder_layerdrop": "in training only, and of the publisher's",
    "decoder_layerdrop": "in training only, and of the publisher's",
    "id2label": "of another head",
    "label2id": "of another head",
    "problem_type": "of another head",
    "init_std": "of random weights",
}
_USUAL = {"attention_dropout": 0.0, "activation_dropout": 0.0, "add_bias_logits": False}
_USUAL_PAD = 58100
_IRRELEVANT_SETTINGS = {
    "source_lang": "only for punctuation, by a library of its own",
    "target_lang": "nothing is done with it",
    "target_vocab_file": "of separate vocabularies",
    "vocab": "where it came from",
    "source_spm": "where it came from",
    "target_spm": "where it came from",
}
# Our names of special tokens and the published ones.
_NAMES = {"end": "eos_token", "unknown": "unk_token", "pad": "pad_token"}
_BIAS = "final_logits_bias"
# Size of the published position table by default; ours are computed.
_NUM_POSITIONS = 1024
_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    config.irrelevant(_IRRELEVANT)
    config.usual(_USUAL)
    config.only(_ONLY)
    config.same({"hidden_size": "d_model", "num_hidden_layers": "encoder_layers"})
    config.same({"num_attention_heads": "encoder_attention_heads"})
    usual = {"attention_heads": 16, "ffn_dim": 4096}
    for what, count in usual.items():
        sides = [config.whole(f"{side}_{what}", count) for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            raise DataError(
                f"{where} has encoder_{what} {sides[0]} and decoder_{what} {sides[1]}: only stacks "
                f"that are alike can be read here."
            )
    size = config.whole("vocab_size", _USUAL_PAD + 1)
    if (config.whole_or_none("decoder_vocab_size") or size) != size:
        raise DataError(
            f"{where} has vocab_size {size} and decoder_vocab_size {config['decoder_vocab_size']}: "
            f"only one table of tokens for both sides can be read here."
        )
    activated = activation(config, "activation_function", "gelu")
    begin, pad = (
        config.token(key, _USUAL_PAD) for key in ("decoder_start_token_id", "pad_token_id")
    )
    if begin != pad:
        raise DataError(
            f"{where} has decoder_start_token_id {begin} and pad_token_id {pad}: only models that "
            f"begin with the padding token can be read here."
        )
    found = {
        "vocab_size": size,
        "num_encoder_layers": config.whole("encoder_layers", 12),
        "num_decoder_layers": config.whole("decoder_layers", 12),
        "num_heads": config.whole("encoder_attention_heads", usual["attention_heads"]),
        "width": config.whole("d_model", 1024),
        "feed_forward_width": config.whole("encoder_ffn_dim", usual["ffn_dim"]),
        "activation": activated,
        "dropout_rate": config.fraction("dropout", 0.1),
        "norm_order": "post",
        "interleaved_positions": False,
        "scale_embeddings": config.flag("scale_embedding", False),
        "token_bias": _BIAS in shapes,
        "begin_id": begin,
    }
    _require_sizes(found, where, shapes)
    return found


def _require_sizes(fields: Facts, where: Path, shapes: dict[str, Shape]) -> None:
    """Refuses arrays whose sizes differ from the config."""
    inner = "model.encoder.layers.0.fc1.weight"
    sizes = (
        ("vocab_size", fields["vocab_size"], "model.shared.weight", 0),
        ("d_model", fields["width"], "model.shared.weight", 1),
        ("encoder_ffn_dim", fields["feed_forward_width"], inner, 0),
    )
    require_sizes(where, shapes, sizes)
    counts = {
        f"model.{side}.layers.": (f"{side}_layers", fields[f"num_{side}_layers"])
        for side in ("encoder", "decoder")
    }
    require_counts(where, shapes, counts)


def _config(trained: TrainedWriter[Vaswani]) -> Json:
    """Writes what `_fields` reads."""
    model = trained.model
    require_known(
        "the published models of this kind, Marian's,",
        norm_order=(model.norm_order, "post"),
        interleaved_positions=(model.interleaved_positions, False),
    )
    end = trained.tokenizer.end
    begin = end if model.begin_id is None else model.begin_id
    stack = {
        "attention_heads": model.num_heads,
        "ffn_dim": model.feed_forward_width,
        "layerdrop": 0.0,
    }
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "vocab_size": model.vocab_size,
        "decoder_vocab_size": model.vocab_size,
        "d_model": model.width,
        "encoder_layers": model.num_encoder_layers,
        "decoder_layers": model.num_decoder_layers,
        **{f"{side}_{what}": x for side in ("encoder", "decoder") for what, x in stack.items()},
        "activation_function": published_activation(model.activation, "swish", "gelu_new"),
        "dropout": model.dropout_rate,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "scale_embedding": model.scale_embeddings,
        "max_position_embeddings": _NUM_POSITIONS,
        "decoder_start_token_id": begin,
        "pad_token_id": begin,
        "eos_token_id": end,
        "forced_eos_token_id": end,
        **_ONLY,
    }


def _entries(model: Vaswani) -> list[Entry]:
    size = model.vocab_size or 0
    bias = {"output_bias": single("output_bias", _BIAS, (size,), (1, size))}
    return entries(sentence_shapes(model), _modules(), bias)


def _modules() -> dict[str, str]:
    """Maps our modules to the published ones."""
    found = {"token_embedding": "model.shared"}
    attentions = {
        "encoder": {"attention": "self_attn"},
        "decoder": {"attention": "self_attn", "cross_attention": "encoder_attn"},
    }
    for stack, names in attentions.items():
        ours, theirs = f"{stack}/{{}}", f"model.{stack}.layers.{{}}"
        for attention, name in names.items():
            found[f"{ours}/{attention}_norm"] = f"{theirs}.{name}_layer_norm"
            for part, their_part in _ATTENTION.items():
                found[f"{ours}/{attention}/{part}"] = f"{theirs}.{name}.{their_part}"
        found[f"{ours}/feed_forward_norm"] = f"{theirs}.final_layer_norm"
        found[f"{ours}/feed_forward/up"] = f"{theirs}.fc1"
        found[f"{ours}/feed_forward/down"] = f"{theirs}.fc2"
    return found


def _copies(model: Vaswani) -> dict[str, str]:
    """The shared token table, which files hold up to four times."""
    copies = ("lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens")
    return {f"{name}.weight": "model.shared.weight" for name in copies}


def _run(source: Source, published: Published, max_length: int | None) -> RunParts:
    """The run of a translator of sentences.

    Raises:
        DataError: if the tokenizer's files are missing, or another tokenizer was given.
    """
    if source.tokenizer is not None:
        raise DataError(
            f"{source.where}: the tokenizer of such a model is in three files beside it, "
            f"{', '.join(FILES)}. Leave --tokenizer out."
        )
    tokenizer = read_marian_tokenizer(source.where, source.files, source.vocabulary)
    positions = source.config.whole("max_position_embeddings", 1024, least=2)
    longest = longest_source(source, max_length, positions)
    return sentence_run(source, tokenizer, positions, max_length=longest)


def read_marian_tokenizer(
    folder: Path, files: SideFiles, vocabulary: Mapping[str, int] | None = None
) -> MarianTokenizer:
    """Reads the tokenizer of a folder, with the tokens that its side files add.

    Args:
        folder: the folder.
        files: its side files.
        vocabulary: tokens and their numbers; None reads them from the folder.

    Raises:
        DataError: if a file is missing or damaged, or requires something unsupported.
    """
    settings = files[SETTINGS]
    settings.only({"separate_vocabs": False})
    kind = settings.text_or_none("tokenizer_class") or files[CONFIG].text_or_none("tokenizer_class")
    if kind not in (None, "MarianTokenizer"):
        raise DataError(f"{settings.where}: the tokenizer_class {kind!r} cannot be read here.")
    settings.irrelevant(IRRELEVANT | _IRRELEVANT_SETTINGS)
    settings.usual(USUAL)
    added = read_added_tokens(files, {})
    usual = MarianTokens()._asdict()
    names = added.names({theirs: usual[ours] for ours, theirs in _NAMES.items()})
    ids = read_vocabulary(folder / VOCABULARY_FILE) if vocabulary is None else dict(vocabulary)
    own = {ours: names.get(theirs, "") for ours, theirs in _NAMES.items()}
    for ours, name in own.items():
        if not name or (ids and name not in ids):
            raise DataError(f"{folder / VOCABULARY_FILE} lacks {name!r}, the {_NAMES[ours]}.")
    special = [*names.values(), *(token.content for token in added.without_role)]
    found = {
        token.content: Added(
            token.content,
            number,
            token.content in special,
            token.lstrip,
            token.rstrip,
            token.single_word,
        )
        for number, token in added.by_id.items()
    }
    # Their tokenizer numbers added tokens from the count of tokens, not from the largest id.
    count = len(ids.keys() | found.keys())
    for name in special:
        if name not in found and name not in own.values():
            found[name] = Added(name, ids.get(name, count), special=True)
            count += name not in ids
    unknown = own["unknown"]
    found.setdefault(unknown, Added(unknown, ids.get(unknown, 0), special=True))
    tokens = (token for name, token in found.items() if name not in (own["end"], own["pad"]))
    return MarianTokenizer(folder, MarianTokens(**own, added=tuple(tokens)), vocabulary)


FAMILIES = (
    Family(
        kinds=("marian",),
        name="vaswani",
        model=Vaswani,
        fields=_fields,
        config=_config,
        entries=_entries,
        head=lambda files, paths: Head("translation", ()),
        run=_run,
        beside=write_sentence_files,
        copies=_copies,
        # Sines and cosines, which our model computes.
        not_ours=r"embed_positions\.weight$",
    ),
)
