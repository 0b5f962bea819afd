"""Encoder-decoders: the run made from an imported one, and the files of an exported one."""

import json
import re
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
import tokenizers

from transformer.data.tokenizers.kinds.marian import MarianTokenizer
from transformer.data.tokenizers.kinds.sentencepiece import SentencePieceTokenizer
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, SentenceTokenizer
from transformer.data.tokenizers.sentencepieces import UNIGRAM, parse_pieces
from transformer.errors import ConfigError
from transformer.files import write_bytes, write_json, write_text
from transformer.interop.family import RunParts, Source, Trained
from transformer.interop.layout import Shape, parameter_shapes
from transformer.interop.searches import Searches, begin_of, read_searches, written_searches
from transformer.interop.side_files import SETTINGS
from transformer.interop.tokenizers.files import with_end
from transformer.interop.tokenizers.sentence_settings import SENTENCEPIECE
from transformer.nn.encoder_decoder import EncoderDecoder
from transformer.ops.search_rules import Search
from transformer.types import Json

# The default maximum number of tokens of a source.
_MAX_SOURCE = 512
# Larger numbers mean that there is no limit.
_ENORMOUS = 1 << 20


@runtime_checkable
class _Beam(Protocol):
    """How a task searches for outputs, and how long they may be."""

    size: int
    length_penalty: float
    extra_length: int
    max_length: int | None
    search: Search


@runtime_checkable
class _Searcher(Protocol):
    """The task of an encoder-decoder that searches for outputs."""

    @property
    def max_length(self) -> int:
        """The most tokens of a source, its end included."""
        ...

    def beam(self) -> _Beam:
        """The search that the config asks for."""
        ...


class _Spans(Protocol):
    """Which tokens of a text are missing in a source."""

    length: int

    @property
    def num_sentinels(self) -> int:
        """How many tokens stand for spans."""
        ...


@runtime_checkable
class _Denoiser(Protocol):
    """A task that writes what is missing in texts."""

    spans: _Spans


# The class of an encoder-decoder, and a run of it.
Model = TypeVar("Model")
TrainedWriter = Trained[Model, _Searcher | _Denoiser, SentenceTokenizer]


def sentence_shapes(model: EncoderDecoder) -> dict[str, Shape]:
    """The shapes of all parameters of an encoder-decoder."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    # In the order of the names of the stacks.
    depths = {
        "num_decoder_layers": model.num_decoder_layers,
        "num_encoder_layers": model.num_encoder_layers,
    }
    return parameter_shapes(model, type(model).__call__, tokens, tokens, depths=depths)


def longest_source(source: Source, asked: int | None, positions: int | None) -> int:
    """Maximum number of tokens of a source, including its end.

    Args:
        source: the opened checkpoint.
        asked: the number that the user requests; None takes the tokenizer's limit.
        positions: number of positions of the model; None if unlimited.

    Raises:
        DataError: if it is not a number, or less than two.
    """
    said = source.files[SETTINGS].number("model_max_length", float(_MAX_SOURCE), least=2.0)
    found = asked or (_MAX_SOURCE if said > _ENORMOUS else int(said))
    return min(found, positions or found)


def sentence_run(
    source: Source, tokenizer: SentenceTokenizer, positions: int | None, **values: int | str
) -> RunParts:
    """The run of an encoder-decoder, with the publisher's search settings.

    Args:
        source: the opened checkpoint.
        tokenizer: the tokenizer of the run.
        positions: number of positions of the model; None if unlimited.
        **values: further fields of the task.

    Raises:
        DataError: if tokenizer and model disagree on the token that ends texts.
    """
    begin = begin_of(source.files)
    searches = read_searches(source.files, tokenizer.end, positions)
    fields = searches._asdict() | values
    return RunParts(fields, tokenizer, model={"begin_id": begin})


def write_sentence_files(trained: TrainedWriter[EncoderDecoder], folder: Path) -> list[str]:
    """Writes the tokenizer's files, `tokenizer_config.json` and `generation_config.json`.

    Args:
        trained: a run of an encoder-decoder.
        folder: the folder to write to.

    Returns:
        Sentences about what the run does but published models do not.

    Raises:
        ConfigError: if published models have no such tokenizer.
    """
    task, tokenizer = trained.task, trained.tokenizer
    begin = trained.model.begin_token()
    begin = tokenizer.end if begin is None else begin
    words: Json = {
        "model_max_length": task.spans.length if isinstance(task, _Denoiser) else task.max_length,
        "eos_token": tokenizer.tokens([tokenizer.end])[0],
    }
    if begin < tokenizer.vocab_size and tokenizer.tokens([begin])[0]:
        words["pad_token"] = tokenizer.tokens([begin])[0]
    sentinels = task.spans.num_sentinels if isinstance(task, _Denoiser) else 0
    if isinstance(tokenizer, MarianTokenizer):
        words |= _write_marian(tokenizer, folder)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        words |= _write_sentencepieces(tokenizer, sentinels, folder)
    else:
        text = with_end(tokenizer.identity(), tokenizer.end)
        text = _with_sentinels(text, tokenizer.vocab_size, sentinels)
        write_text(folder / TOKENIZER_FILE, text)
        words |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", words)
    notes: list[str] = []
    if isinstance(task, _Denoiser):
        content = {"decoder_start_token_id": begin, "pad_token_id": begin}
        content["eos_token_id"] = tokenizer.end
    else:
        unwritten = trained.model.unwritten_tokens()
        content, notes = _generation(task, tokenizer.end, begin, unwritten)
    write_json(folder / "generation_config.json", content)
    return notes


def _generation(
    task: _Searcher, end: int, begin: int, unwritten: tuple[int, ...]
) -> tuple[Json, list[str]]:
    """The content of `generation_config.json`, and sentences about what it cannot express."""
    notes: list[str] = []
    beam = task.beam()
    search, alpha = beam.search, beam.length_penalty
    room = task.max_length + beam.extra_length if beam.max_length is None else beam.max_length
    if search.kind == "wu":
        if beam.size > 1 and alpha:
            notes.append(
                f"config.task.length_penalty is {alpha} by the rule of Wu et al. 2016, which "
                f"nobody else has: there they divide by length ** {alpha}. To search alike, set "
                f"config.task.search.kind=transformers."
            )
        if beam.max_length is None:
            notes.append(
                f"outputs are at most {beam.extra_length} tokens longer than their source, and "
                f"there at most {room} tokens long."
            )
        # The library does not count the end token of an output at its limit.
        room += 1
    content = written_searches(
        Searches(beam.size, alpha, search), begin=begin, end=end, max_new_tokens=room
    )
    if search.kind == "wu":
        content.setdefault("forced_eos_token_id", end)
        if unwritten:
            more = [[token] for token in unwritten]
            content["bad_words_ids"] = [*content.get("bad_words_ids", []), *more]
    return content, notes


def _write_marian(tokenizer: MarianTokenizer, folder: Path) -> Json:
    """Writes a Marian tokenizer; returns its settings."""
    tokenizer.save(folder)
    special = tokenizer.special
    words: Json = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": False}
    words |= {"unk_token": special.unknown, "pad_token": special.pad, "eos_token": special.end}
    if special.added:
        added = {str(token.id): {**token._asdict(), "normalized": False} for token in special.added}
        for token in added.values():
            del token["id"]
        words["added_tokens_decoder"] = added
    return words


def _write_sentencepieces(tokenizer: SentencePieceTokenizer, sentinels: int, folder: Path) -> Json:
    """Writes a SentencePiece model as a T5 tokenizer; returns its settings.

    Raises:
        ConfigError: if a T5 tokenizer would split texts differently.
    """
    table = parse_pieces(tokenizer.content)
    if table.kind != UNIGRAM or not (table.begins_with_space and table.joins_spaces):
        raise ConfigError(
            "the tokenizer is a SentencePiece model that cuts texts otherwise than those of "
            "published encoder-decoders, which are of the kind `unigram` and begin with a space."
        )
    write_bytes(folder / SENTENCEPIECE, tokenizer.content)
    added = {
        str(tokenizer.vocab_size + index): {"content": f"<extra_id_{index}>", "special": True}
        for index in range(sentinels)
    }
    return {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 0,
        "added_tokens_decoder": added,
    }


def _with_sentinels(text: str, first: int, count: int) -> str:
    """Adds span tokens to a `tokenizer.json`, as special tokens."""
    library_tokenizer = tokenizers.Tokenizer.from_str(text)
    names = [f"<extra_id_{index}>" for index in range(count)]
    if names and library_tokenizer.token_to_id(names[0]) is None:
        library_tokenizer.add_tokens(names)
        if library_tokenizer.token_to_id(names[0]) != first:
            library_tokenizer = tokenizers.Tokenizer.from_str(text)
    described = json.loads(library_tokenizer.to_str())
    for token in described["added_tokens"]:
        token["special"] |= re.fullmatch(r"<extra_id_\d+>", token["content"]) is not None
    return json.dumps(described, indent=2, ensure_ascii=False)
