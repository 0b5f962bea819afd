"""Moves as tokens: the vocabulary of a model that reads and writes games."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsInt

import numpy as np

from transformer.data.tokenizers.protocol import TextStream, TextTokenizer
from transformer.errors import DataError

# The token in front of every game, and what it is called.
BEGIN = 0
_BEGIN_NAME = "<game>"


class MoveTokenizer(TextTokenizer):
    """A token for each move, separated by spaces, and one that begins every game.

    It is known from the rules alone, so that runs need no file for it.

    Attributes:
        names: the moves, of which the first has the id 1.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._ids = {name: number + 1 for number, name in enumerate(names)}

    @property
    def vocab_size(self) -> int:
        """V: the moves and the beginning."""
        return len(self.names) + 1

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of the moves in each text.

        Raises:
            DataError: for a word that is no move.
        """
        for word in (word for text in texts for word in text.split()):
            if word.lower() not in self._ids:
                raise DataError(
                    f"{word!r} is no move: moves are written {self.names[0]} to {self.names[-1]}, "
                    f"with spaces between."
                )
        return [
            np.array([self._ids[word.lower()] for word in text.split()], np.int32) for text in texts
        ]

    def encode_prompt(self, text: str) -> np.ndarray:
        """The token ids of a game that is to be continued."""
        return np.concatenate([np.array([BEGIN], np.int32), self.encode(text)])

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The moves, with spaces between."""
        return " ".join(name for name in self.tokens(ids) if name != _BEGIN_NAME)

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Each token by itself."""
        names = (_BEGIN_NAME, *self.names)
        return [names[int(index)] for index in ids]

    def index(self, token: str) -> int | None:
        """The id of a move; None if there is no such move."""
        return self._ids.get(token)

    def stands_apart(self, index: int) -> bool:
        """Whether a token is the beginning of a game."""
        return index == BEGIN

    def stream(self) -> "MoveStream":
        """A decoder for moves that arrive one by one."""
        return MoveStream(self)

    def identity(self) -> str:
        """The names of all tokens."""
        return json.dumps(self.names)

    def save(self, folder: Path) -> None:
        """Nothing: the rules are enough."""


class MoveStream(TextStream):
    """Writes each move as soon as it arrives."""

    def __init__(self, tokenizer: MoveTokenizer) -> None:
        self._tokenizer = tokenizer

    def push(self, token: SupportsInt) -> str:
        """A space and the move."""
        return f" {self._tokenizer.decode([token])}"

    def close(self) -> str:
        """Nothing is ever unfinished."""
        return ""
