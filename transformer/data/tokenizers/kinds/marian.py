"""Tokenizers of Marian's published models: two SentencePiece models and one table of numbers.

A model for each language cuts texts into pieces, and `vocab.json` numbers the pieces of both
(Tiedemann and Thottingal 2020, OPUS-MT). Marian's scripts normalise punctuation first; this file
does not, and neither does the library `transformers` by default.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, SupportsInt, cast

import numpy as np

from transformer.data.reading import bounds
from transformer.data.reading.content import read_bounded
from transformer.data.reading.json_text import parse_json
from transformer.data.reading.text import decode_text, read_text
from transformer.data.tokenizers.protocol import Kind, SentenceTokenizer
from transformer.data.tokenizers.sentencepieces import SentencePieces, read_sentencepieces
from transformer.errors import DataError
from transformer.files import write_bytes, write_text
from transformer.types import Json

SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE = FILES = ("source.spm", "target.spm", "vocab.json")
# The file of a run with the special tokens that published models have in their settings.
TOKENS_FILE = "marian_tokens.json"

# SentencePiece's symbols for a space and for unknown text.
_SPACE, _NOT_KNOWN = "\N{LOWER ONE EIGHTH BLOCK}", " \N{DOUBLE QUESTION MARK} "


class Added(NamedTuple):
    """A token that is found in texts before they are cut into pieces.

    Attributes:
        content: its letters.
        id: its number.
        special: whether decoded text sets it apart, with a space behind it.
        lstrip: whether it includes the white space before it.
        rstrip: whether it includes the white space behind it.
        single_word: whether it counts only between white space.
    """

    content: str
    id: int
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class MarianTokens(NamedTuple):
    """The special tokens.

    Attributes:
        end: ends every text.
        unknown: stands for pieces without a number.
        pad: begins every target.
        added: further ones.
    """

    end: str = "</s>"
    unknown: str = "<unk>"
    pad: str = "<pad>"
    added: tuple[Added, ...] = ()


class MarianTokenizer(SentenceTokenizer):
    """Sentences of two languages to token ids and back.

    Attributes:
        pad: the id of the token that begins every target.
        special: the special tokens.
    """

    def __init__(
        self,
        folder: Path,
        special: MarianTokens | None = None,
        vocabulary: Mapping[str, int] | None = None,
    ) -> None:
        """Reads the three files.

        Args:
            folder: where they are, each by its name in `FILES`.
            special: None takes what a run keeps, or what is usual.
            vocabulary: pieces and their numbers, in place of the third file.

        Raises:
            MissingDependencyError: if the library `sentencepiece` is not installed.
            DataError: if a file is missing or damaged, or a number is that of two tokens.
        """
        files = FILES if vocabulary is None else FILES[:-1]
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"{folder} lacks {' and '.join(missing)}: a tokenizer of Marian's is in "
                f"{', '.join(FILES[:-1])} and {FILES[-1]} together."
            )
        self.special = _read_tokens(folder / TOKENS_FILE) if special is None else special
        self._source = read_sentencepieces(folder / SOURCE_FILE)
        self._target = read_sentencepieces(folder / TARGET_FILE)
        path = folder / VOCABULARY_FILE
        self._text = (
            decode_text(read_bounded(path), str(path))
            if vocabulary is None
            else json.dumps(dict(vocabulary), ensure_ascii=False, indent=2)
        )
        self._ids = _parse_vocabulary(self._text, folder / VOCABULARY_FILE, self.special)
        self._pieces = {index: piece for piece, index in self._ids.items()}
        self._unknown = self._ids[self.special.unknown]
        self.pad = self._ids[self.special.pad]
        self._own = (self.special.end, self.special.pad)
        self._added = {token.content: token for token in self.special.added}
        self._pieces |= {token.id: token.content for token in self.special.added}
        in_texts = sorted(self._added.keys() - {*self._own}, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, in_texts))) if in_texts else None

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V."""
        return max(self._pieces) + 1

    @property
    def end(self) -> int:
        """The id of `</s>`."""
        return self._ids[self.special.end]

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of source lines as int32.

        A line may begin with the language to translate to, `>>fra<<` say, where a model has several
        of them: that is one token.
        """
        return self._encode(self._source, texts)

    def encode_targets(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of target lines as int32."""
        return self._encode(self._target, texts)

    def _encode(self, model: SentencePieces, lines: Sequence[str]) -> list[np.ndarray]:
        parts = [list(self._parts(line)) for line in lines]
        texts = [part for of_line in parts for part in of_line if isinstance(part, str)]
        encoded = iter(model.processor.encode(texts, out_type=str, num_threads=-1))
        return [
            np.array(
                [
                    index
                    for part in of_line
                    for index in ([part] if isinstance(part, int) else map(self._id, next(encoded)))
                ],
                np.int32,
            )
            for of_line in parts
        ]

    def _parts(self, line: str) -> Iterator[int | str]:
        """The ids of a line's added tokens, and the texts between them."""
        texts, tokens, place = [], [], 0
        for found in self._split.finditer(line) if self._split else ():
            token = self._added[found.group()]
            before, behind = line[place : found.start()], line[found.end() :]
            if token.single_word and (before[-1:].strip() or behind[:1].strip()):
                continue
            texts.append(before.rstrip() if token.lstrip else before)
            tokens.append(token)
            place = found.end()
        for text, token in zip([*texts, line[place:]], [None, *tokens], strict=True):
            if token is not None:
                yield token.id
            stripped = token is not None and token.rstrip
            language, rest = _split_language(text.lstrip() if stripped else text)
            yield from map(self._id, language)
            yield rest

    def _id(self, piece: str) -> int:
        # SentencePiece returns unknown text as it was written.
        if piece in self._own:
            return self._unknown
        return self._ids.get(piece, self._unknown)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The target sentence; an unknown token is shown as `⁇`, others that are no text are not.

        Pieces that only the source's model knows are shown as they are.
        """
        pieces = [self._pieces.get(int(i), "") for i in ids]
        pieces = [piece for piece in pieces if piece and piece not in self._own]
        words: list[str] = []
        known: list[str] = []
        for piece in [*pieces, self.special.unknown]:
            added = self._added.get(piece)
            if piece == self.special.unknown or (added is not None and added.special):
                shown = _NOT_KNOWN if piece == self.special.unknown else f"{piece} "
                words += [self._target.processor.decode_pieces(known), shown]
                known = []
            else:
                known.append(piece)
        return "".join(words[:-1]).replace(_SPACE, " ").strip()

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Each token by itself."""
        return [self._pieces.get(int(i), "") for i in ids]

    def save(self, folder: Path) -> None:
        """Writes the three files unchanged, and one more if special tokens are unusual."""
        write_bytes(folder / SOURCE_FILE, self._source.content)
        write_bytes(folder / TARGET_FILE, self._target.content)
        write_text(folder / VOCABULARY_FILE, self._text)
        if self.special != MarianTokens():
            write_text(folder / TOKENS_FILE, _written(self.special))

    def identity(self) -> str:
        """All files as one JSON object."""
        models = (self._source, self._target)
        texts = [base64.b64encode(model.content).decode("ascii") for model in models]
        files = dict(zip(FILES, [*texts, self._text], strict=True))
        if self.special != MarianTokens():
            files[TOKENS_FILE] = _written(self.special)
        return json.dumps(files)


def _split_language(line: str) -> tuple[list[str], str]:
    """The token for a language at the beginning of a line, if any, and the rest."""
    place = line.find("<<")
    if line.startswith(">>") and place >= 0:
        return [line[: place + 2]], line[place + 2 :]
    return [], line


def _written(special: MarianTokens) -> str:
    """The special tokens as text, for `_read_tokens`."""
    content = special._asdict() | {"added": [token._asdict() for token in special.added]}
    return json.dumps(content, indent=2, ensure_ascii=False)


def _read_tokens(path: Path) -> MarianTokens:
    """The special tokens saved in a run; the usual ones if there are none.

    Raises:
        DataError: if the file is damaged.
    """
    if not path.is_file():
        return MarianTokens()
    try:
        content = cast("Json", parse_json(read_text(path), path))
        added = tuple(Added(**token) for token in content.pop("added"))
        return MarianTokens(**content, added=added)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} holds no tokens of a Marian: {error}") from None


def _parse_vocabulary(text: str, path: Path, special: MarianTokens) -> dict[str, int]:
    """Pieces and their numbers, of which some may be missing.

    Raises:
        DataError: if a special token is missing, or a number is there twice or is none.
    """
    ids = parse_json(text, path)
    if not isinstance(ids, dict) or not all(
        type(index) is int and 0 <= index < bounds.TOKENS for index in ids.values()
    ):
        raise DataError(f"{path} is no table of tokens and their numbers.")
    missing = [token for token in special[:3] if token not in ids]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}, which Marian needs.")
    owners: dict[int, str] = {}
    for piece, index in ids.items():
        if index in owners:
            raise DataError(f"{path} has the number {index} twice: {owners[index]!r}, {piece!r}.")
        owners[index] = piece
    return ids


def _make(value: str, texts: Iterable[str], vocab_size: int, lowercase: bool) -> SentenceTokenizer:
    raise AssertionError("a tokenizer of Marian's is imported with its model, never made.")


KIND = Kind(
    role=SentenceTokenizer,
    values=(),
    files={},
    kept_in=SOURCE_FILE,
    make=_make,
    load=MarianTokenizer,
)
