"""Tokenizers of Marian's published models: two SentencePiece models and one table of numbers.

Each language is cut into pieces by a model of its own, and `vocab.json` numbers the pieces of both
(Tiedemann and Thottingal 2020, OPUS-MT). Marian's own scripts also normalise punctuation before;
this does not, and neither does the library `transformers` unless told to.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transformer.data.sentencepieces import read_sentencepieces
from transformer.data.text import read_text
from transformer.errors import DataError

SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE = FILES = ("source.spm", "target.spm", "vocab.json")

_END, _UNKNOWN, _PAD = "</s>", "<unk>", "<pad>"
# What SentencePiece writes for a space, and for what it does not know.
_SPACE, _NOT_KNOWN = "\N{LOWER ONE EIGHTH BLOCK}", " \N{DOUBLE QUESTION MARK} "


class MarianTokenizer:
    """Sentences of two languages to token ids and back; a `SentenceTokenizer`.

    Attributes:
        pad: the id of the token that begins every target.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the three files.

        Args:
            folder: where they are, each by its name in `FILES`.

        Raises:
            MissingDependencyError: if the library `sentencepiece` is not installed.
            DataError: if a file is missing or damaged, or the numbers are not 0, 1, 2, ...
        """
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"{folder} lacks {' and '.join(missing)}: a tokenizer of Marian's is in "
                f"{', '.join(FILES[:-1])} and {FILES[-1]} together."
            )
        self._source = read_sentencepieces(folder / SOURCE_FILE)
        self._target = read_sentencepieces(folder / TARGET_FILE)
        self._text = read_text(folder / VOCABULARY_FILE)
        self._ids = _parse_vocabulary(self._text, folder / VOCABULARY_FILE)
        self._pieces = sorted(self._ids, key=self._ids.__getitem__)
        self._unknown = self._ids[_UNKNOWN]
        self.pad = self._ids[_PAD]

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V."""
        return len(self._pieces)

    @property
    def end(self) -> int:
        """The id of `</s>`."""
        return self._ids[_END]

    def encode_lines(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The token ids of source lines as int32.

        A line may begin with the language to translate to, `>>fra<<` say, where a model has several
        of them: that is one token.
        """
        return self._encode(self._source.processor, lines)

    def encode_targets(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The token ids of target lines as int32."""
        return self._encode(self._target.processor, lines)

    def _encode(self, processor: Any, lines: Sequence[str]) -> list[np.ndarray]:
        split = [_split_language(line) for line in lines]
        encoded = processor.encode([text for _, text in split], out_type=str, num_threads=-1)
        return [
            np.array([self._id(piece) for piece in [*language, *pieces]], np.int32)
            for (language, _), pieces in zip(split, encoded, strict=True)
        ]

    def _id(self, piece: str) -> int:
        # What SentencePiece does not know comes as it was written, whatever that is.
        if piece in (_END, _PAD):
            return self._unknown
        return self._ids.get(piece, self._unknown)

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The target sentence; an unknown token is shown as `⁇`, others that are no text are not.

        Pieces that only the source's model knows are shown as they are.
        """
        pieces = [self._pieces[int(i)] for i in ids]
        pieces = [piece for piece in pieces if piece not in (_END, _PAD)]
        words: list[str] = []
        known: list[str] = []
        for piece in [*pieces, _UNKNOWN]:
            if piece == _UNKNOWN:
                words += [self._target.processor.decode_pieces(known), _NOT_KNOWN]
                known = []
            else:
                known.append(piece)
        return "".join(words[:-1]).replace(_SPACE, " ").strip()

    def tokens(self, ids: np.ndarray | list[int]) -> list[str]:
        """Each token by itself."""
        return [self._pieces[int(i)] for i in ids]

    def save(self, folder: Path) -> None:
        """Writes the three files as they were."""
        (folder / SOURCE_FILE).write_bytes(self._source.content)
        (folder / TARGET_FILE).write_bytes(self._target.content)
        (folder / VOCABULARY_FILE).write_text(self._text, "utf-8")

    def to_text(self) -> str:
        """All three files as one JSON object."""
        models = (self._source, self._target)
        texts = [base64.b64encode(model.content).decode("ascii") for model in models]
        return json.dumps(dict(zip(FILES, [*texts, self._text], strict=True)))


def _split_language(line: str) -> tuple[list[str], str]:
    """The token for a language at the beginning of a line, if any, and the rest."""
    place = line.find("<<")
    if line.startswith(">>") and place >= 0:
        return [line[: place + 2]], line[place + 2 :]
    return [], line


def _parse_vocabulary(text: str, path: Path) -> dict[str, int]:
    """Pieces and their numbers.

    Raises:
        DataError: if a special token is missing, or a number is missing or there twice.
    """
    try:
        ids = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(ids, dict) or not all(type(index) is int for index in ids.values()):
        raise DataError(f"{path} is no table of tokens and their numbers.")
    missing = [token for token in (_END, _UNKNOWN, _PAD) if token not in ids]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}, which Marian needs.")
    wrong = set(range(len(ids))).symmetric_difference(ids.values())
    if wrong:
        raise DataError(
            f"{path} has {len(ids)} tokens: each of the numbers from 0 to {len(ids) - 1} must be "
            f"that of one token, and {min(wrong)} is not so."
        )
    return ids
