"""What tokenizers have in common, and what further methods the jobs ask of theirs."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, SupportsInt, TypeVar, runtime_checkable

import numpy as np

# What tokenizers of the library `tokenizers` are kept in.
TOKENIZER_FILE = "tokenizer.json"


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    What is asked of a text's pieces (their places, their words) is in `pieces.EncoderTokenizer`.
    """

    @property
    def vocab_size(self) -> int:
        """V, the largest id + 1; there may be ids without a token."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """The token ids of one text as int32, nothing put around them.

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
        """What the last tokens began and did not complete, as replacement characters."""
        ...


@runtime_checkable
class TextTokenizer(Tokenizer, Protocol):
    """The tokenizer of a model that continues texts.

    Special tokens that are written in a text are what they say.
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
        """Whether a token is looked for in a text before the text is cut into words."""
        ...


@runtime_checkable
class SentenceTokenizer(Tokenizer, Protocol):
    """The tokenizer of a model that reads one text and writes another.

    It knows a token for the end of a sentence. A vocabulary is shared by both sides. Encoded
    sentences are without their end token: who makes batches appends it to the targets, and starts
    the decoder's input with it, as fairseq does. Nothing that is written in a text makes a special
    token of it, `</s>` included.
    """

    @property
    def end(self) -> int:
        """The id of the token that ends a sentence and starts the decoder's input."""
        ...

    def encode_targets(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode_all`, of what is to be written; usually it has the same tokens."""
        return self.encode_all(texts)


# A kind of tokenizer. It is not bound to `Tokenizer`: no class can be asked whether it keeps a
# protocol with properties.
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Kind(Generic[T]):
    """A way to make and to keep tokenizers. Each file in `kinds/` has one, called `KIND`.

    Attributes:
        role: what its tokenizers are used for: `TextTokenizer`, `SentenceTokenizer` or
            `EncoderTokenizer`.
        values: of `config.task.tokenizer` that make a new one.
        files: what one can be read from: endings of paths, each with what to call such a file.
        kept_in: the file by which a folder is known to keep one.
        make: of a value or a path, texts for a new vocabulary, its size, and whether it is
            lowercase.
        load: of a folder with the file `kept_in`; None if that holds another kind of tokenizer.
    """

    role: type[T]
    values: Sequence[str]
    files: Mapping[str, str]
    kept_in: str
    make: Callable[[str, Iterable[str], int, bool], T]
    load: Callable[[Path], T | None]
