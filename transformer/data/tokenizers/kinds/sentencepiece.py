"""Sentence tokenizers that are models of the library `sentencepiece`."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsInt

import numpy as np

from transformer.data.tokenizers.protocol import Kind, SentenceTokenizer
from transformer.data.tokenizers.sentencepieces import read_sentencepieces
from transformer.errors import DataError
from transformer.files import write_bytes

SENTENCEPIECE_FILE = "tokenizer.model"


class SentencePieceTokenizer(SentenceTokenizer):
    """A model of the library `sentencepiece` (Kudo and Richardson 2018), kept as it is.

    SentencePiece itself never turns text into a control token such as `</s>`.

    Attributes:
        content: the content of the model's file.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads a model.

        Raises:
            MissingDependencyError: if the library is not installed.
            DataError: if the file is missing, is no model, or knows no end of a sentence.
        """
        self.content, self._processor = read_sentencepieces(path)
        if self._processor.eos_id() < 0:
            raise DataError(
                f"{path} has no token for the end of a sentence: train the SentencePiece model "
                f"again with --eos_id set to an id that is not negative, such as 2."
            )

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V."""
        return self._processor.vocab_size()

    @property
    def end(self) -> int:
        """The model's `eos_id`."""
        return self._processor.eos_id()

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each text as int32; one thread for each core shares the texts."""
        encoded = self._processor.encode(list(texts), out_type=int, num_threads=-1)
        return [np.array(ids, np.int32) for ids in encoded]

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The sentence; an unknown token is shown as `⁇`."""
        return self._processor.decode([int(i) for i in ids]).strip()

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Each token by itself."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.model`."""
        write_bytes(folder / SENTENCEPIECE_FILE, self.content)

    def identity(self) -> str:
        """The content of `tokenizer.model` in base 64."""
        return base64.b64encode(self.content).decode("ascii")


KIND = Kind(
    role=SentenceTokenizer,
    values=(),
    files={".model": "a SentencePiece .model"},
    kept_in=SENTENCEPIECE_FILE,
    make=lambda path, texts, vocab_size, lowercase: SentencePieceTokenizer(path),
    load=lambda folder: SentencePieceTokenizer(folder / SENTENCEPIECE_FILE),
)
