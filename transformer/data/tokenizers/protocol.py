"""The protocols of tokenizers: what all have in common, and further methods for each use."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, SupportsInt, TypeVar, runtime_checkable

import numpy as np

# The file in which tokenizers of the library `tokenizers` are saved.
TOKENIZER_FILE = "tokenizer.json"


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    Offsets and words of a text's pieces are in `pieces.EncoderTokenizer`.
    """

    @property
    def vocab_size(self) -> int:
        """V, the largest id + 1; there may be ids without a token."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """The token ids of one text as int32, without added tokens.

        Raises:
            DataError: if the text has a character that the tokenizer does not know.
        """
        (ids,) = self.encode_all([text])
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The same for many texts, which threads share."""
        ...

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of token ids."""
        ...

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Each token by itself, to be shown; empty for an id that has none."""
        ...

    def identity(self) -> str:
        """All that `save` writes, as one text: the same for equal tokenizers."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, for `choosing.load_tokenizer`."""
        ...


@runtime_checkable
class TextStream(Protocol):
    """Turns tokens into text as soon as they make whole characters."""

    def push(self, token: SupportsInt) -> str:
        """The text that `token` completes; empty while a character is unfinished."""
        ...

    def close(self) -> str:
        """The unfinished character of the last tokens, as replacement characters."""
        ...


@runtime_checkable
class TextTokenizer(Tokenizer, Protocol):
    """The tokenizer of a model that continues texts.

    Special tokens written in a text count as special tokens.
    """

    def encode_prompt(self, text: str) -> np.ndarray:
        """Token ids of a text that is to be continued: with the tokens that begin every text."""
        ...

    def stream(self) -> TextStream:
        """A decoder for tokens that arrive one by one."""
        ...

    def index(self, token: str) -> int | None:
        """The id of a token; None if there is no such token."""
        ...

    def stands_apart(self, index: int) -> bool:
        """Whether a token is searched in a text before the text is cut into words."""
        ...


@runtime_checkable
class SentenceTokenizer(Tokenizer, Protocol):
    """The tokenizer of a model that reads one text and writes another.

    It knows a token for the end of a sentence. A vocabulary is shared by both sides. Encoded
    sentences have no end token: batches append it to the targets, and begin the decoder's input
    with it, as in fairseq. Text never becomes a special token, not even `</s>`.
    """

    @property
    def end(self) -> int:
        """The id of the token that ends a sentence and starts the decoder's input."""
        ...

    def encode_targets(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode_all`, for targets; usually the tokens are the same."""
        return self.encode_all(texts)


# A kind of tokenizer. It has no bound `Tokenizer`: `issubclass` does not support protocols with
# properties.
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Kind(Generic[T]):
    """A way to make, save and load tokenizers. Each file in `kinds/` has one, called `KIND`.

    Attributes:
        role: the use of its tokenizers: `TextTokenizer`, `SentenceTokenizer` or `EncoderTokenizer`.
        values: the values of `config.task.tokenizer.kind` that make a new one.
        files: suffixes of files to read one from, each with a name for such a file.
        kept_in: the file that shows that a folder holds one.
        make: makes one from a value or a path, texts for a new vocabulary, its size, and whether it
            is lowercase.
        lowercase: suffixes of the values and paths whose tokenizers can be lowercase.
        load: loads one from a folder with the file `kept_in`; None if that holds another kind.
    """

    role: type[T]
    values: Sequence[str]
    files: Mapping[str, str]
    kept_in: str
    make: Callable[[str, Iterable[str], int, bool], T]
    load: Callable[[Path], T | None]
    lowercase: Sequence[str] = ()
