"""RoBERTa in the layout of the library `transformers`: that of BERT, except for what is here."""

from pathlib import Path
from typing import cast

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from transformer.data.tokenizers.byte_pieces import BytePieceTokenizer
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.errors import DataError
from transformer.interop.encoder_runs import encoder_run
from transformer.interop.families.bert import Kind, family
from transformer.interop.family import Published, RunParts, Source
from transformer.interop.side_files import SETTINGS, SideFiles, read_vocabulary, require_vocabulary
from transformer.interop.tokenizers.encoders import (
    MERGES,
    OF_CLEANING,
    PIECES,
    EncoderClass,
    default_names,
    library_model,
    no_tokenizer,
)
from transformer.interop.tokenizers.files import merge_pairs, read_lines

_KIND = Kind(
    name="roberta",
    architecture="Roberta",
    vocab_size=50265,
    heads={
        "masked_token/dense": "lm_head.dense",
        "masked_token/norm": "lm_head.layer_norm",
        # Never published; listed so that every parameter has a name.
        "next_sentence": "next_sentence",
    },
    bias="lm_head.bias",
    decoder="lm_head.decoder",
    # Whatever the layers use.
    head_activation="gelu",
    pad=1,
    # The text classifier has a dense layer in front, which is our pooler.
    classifier={
        "classifier.dense.": "roberta.pooler.dense.",
        "classifier.out_proj.weight": "classifier.weight",
        "classifier.out_proj.bias": "classifier.bias",
    },
)


def _run(source: Source, published: Published, max_length: int | None) -> RunParts:
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


def _tokenizer(files: SideFiles, folder: Path, names: dict[str, str]) -> tokenizers.Tokenizer:
    """RoBERTa's tokenizer: byte-level pieces."""
    content = library_model(files, folder, "BPE")
    vocabulary, merges = content.get("vocab"), content.get("merges")
    if vocabulary is None or merges is None:
        paths = folder / PIECES, folder / MERGES
        if not all(path.is_file() for path in paths):
            raise no_tokenizer(folder)
        # Checks limits before the library reads the file itself.
        read_vocabulary(paths[0])
        read_lines(paths[1])
        model = models.BPE.from_file(*map(str, paths))
    else:
        path = folder / TOKENIZER_FILE
        model = models.BPE(require_vocabulary(vocabulary, path), merge_pairs(merges, path))
    spaced = files[SETTINGS].flag("add_prefix_space", False)
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    library.decoder = decoders.ByteLevel()
    return library


_CLASS = EncoderClass(
    make=_tokenizer,
    special=default_names(BytePieceTokenizer) | {"bos_token": "<s>", "eos_token": "</s>"},
    ignored=OF_CLEANING,
    separators=2,
)
FAMILIES = (family(_KIND, _run, {"RobertaTokenizer": _CLASS}),)
