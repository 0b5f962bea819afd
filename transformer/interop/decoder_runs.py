"""Language models: the run made from an imported one, and the files of an exported one."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from transformer.data.reading.library_errors import in_our_words
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, TextTokenizer
from transformer.data.tokenizers.text import LibraryTextTokenizer
from transformer.files import write_bytes, write_json
from transformer.interop.family import Family, Head, Published, RunParts, Source, Trained
from transformer.interop.generation import sampling_config, writing_fields
from transformer.interop.opening import tokenizer_classes
from transformer.interop.tokenizers.decoders import DecoderClass, Usual, decoder_tokenizer
from transformer.nn.decoder import DecoderOnly
from transformer.ops.logits import Sampling
from transformer.types import Json

# Maximum number of tokens of a window when an imported language model is evaluated or trained.
_MOST_TOKENS = 2048


@runtime_checkable
class Writer(Protocol):
    """How the task of a language model generates text."""

    begin: int | None
    pad: int | None
    stop: str | None
    stop_ids: tuple[int, ...]
    max_new_tokens: int | None

    def sampling(self) -> Sampling:
        """How tokens are sampled."""
        ...


# The class of a decoder, and a run of it.
Decoder = TypeVar("Decoder")
TrainedDecoder = Trained[Decoder, Writer, TextTokenizer]


def decoder_run(
    usual: Mapping[str, Usual], source: Source, published: Published, max_length: int | None
) -> RunParts:
    """The run made from a published language model: it continues texts.

    Args:
        usual: the default tokenizer by `model_type`.
        source: the opened checkpoint.
        published: what was read from it.
        max_length: tokens of a window; None takes the default, or the model's limit.

    Raises:
        DataError: if it has no usable tokenizer.
    """
    if source.tokenizer is not None:
        tokenizer = LibraryTextTokenizer(parse_tokenizer_json(source.tokenizer, source.where))
    else:
        with in_our_words(f"{source.where} holds no tokenizer that can be used"):
            made = decoder_tokenizer(
                source.files,
                source.where,
                tokenizer_classes(DecoderClass),
                usual.get(source.config.text("model_type"), Usual()),
                published.model["vocab_size"],
            )
            tokenizer = LibraryTextTokenizer(made)
    fields = {
        "context": min(max_length or _MOST_TOKENS, published.model["context"]),
        "batch_size": 1,
        **(source.writing or writing_fields(source.files)),
    }
    return RunParts(fields, tokenizer)


def token_ids(trained: TrainedDecoder) -> Json:
    """The special tokens for `config.json` and `generation_config.json`."""
    ends, task = _ends(trained), trained.task
    return {
        "bos_token_id": task.begin,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends) or None,
        "pad_token_id": task.pad,
    }


def _ends(trained: TrainedDecoder) -> tuple[int, ...]:
    """All tokens that end a text, including the one that the run names by its text."""
    task = trained.task
    named = trained.tokenizer.index(task.stop) if task.stop else None
    return tuple(dict.fromkeys([*task.stop_ids, *([] if named is None else [named])]))


def write_decoder_files(trained: TrainedDecoder[DecoderOnly], folder: Path) -> list[str]:
    """Writes the tokenizer's files and `generation_config.json`, without losing anything.

    Args:
        trained: the run.
        folder: the folder to write to.
    """
    task, tokenizer = trained.task, trained.tokenizer
    write_bytes(folder / TOKENIZER_FILE, (trained.workdir / TOKENIZER_FILE).read_bytes())
    words: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": trained.model.context,
    }
    tokens = {"bos_token": task.begin, "pad_token": task.pad}
    tokens["eos_token"] = next(iter(_ends(trained)), None)
    # Their tokenizer would split a token named here out of words that contain it.
    words |= {
        name: tokenizer.tokens([index])[0]
        for name, index in tokens.items()
        if index is not None and tokenizer.stands_apart(index)
    }
    write_json(folder / "tokenizer_config.json", words)
    named = {key: value for key, value in token_ids(trained).items() if value is not None}
    writing = named | sampling_config(task.sampling())
    if task.max_new_tokens is not None:
        writing["max_new_tokens"] = task.max_new_tokens
    write_json(folder / "generation_config.json", writing)
    return []


# The families of language models have these parts in common.
decoder_family = functools.partial(
    Family, head=lambda files, paths: Head("language_modeling", ()), beside=write_decoder_files
)
