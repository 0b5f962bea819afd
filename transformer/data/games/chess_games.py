"""Games of chess as examples: one game a row."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from transformer.data.games.chess_moves import move_names
from transformer.data.games.move_tokens import BEGIN, MoveTokenizer
from transformer.data.source import Visit
from transformer.ops.losses import IGNORED
from transformer.types import HostBatch


def chess_tokenizer() -> MoveTokenizer:
    """A token for each move that there is."""
    return MoveTokenizer(move_names())


@dataclasses.dataclass(frozen=True, eq=False)
class ChessGames:
    """Games that are known.

    Attributes:
        games: the tokens of their moves.
        length: T; of longer games the first moves are taken.
    """

    games: Sequence[Int[np.ndarray, " _"]]
    length: int

    def __len__(self) -> int:
        return len(self.games)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """`tokens` and `labels`, `[B, T]`."""
        rows = [self.padding(visit) for visit in visits]
        for row, visit in zip(rows, visits, strict=True):
            moves = self.games[visit.example][: self.length]
            row["tokens"][0, 1 : len(moves)] = moves[:-1]
            row["labels"][0, : len(moves)] = moves
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def padding(self, visit: Visit) -> HostBatch:
        """A row without labels."""
        return {
            "tokens": np.full((1, self.length), BEGIN, np.int32),
            "labels": np.full((1, self.length), IGNORED, np.int32),
        }
