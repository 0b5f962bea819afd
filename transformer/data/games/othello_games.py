"""Games of Othello as examples: random ones, made when they are visited, and those of files."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from transformer.data.games.move_tokens import BEGIN
from transformer.data.games.othello import LONGEST, SQUARES, random_games
from transformer.data.games.transcripts import Transcripts
from transformer.data.source import Visit
from transformer.ops.losses import IGNORED
from transformer.types import HostBatch

# Visits of held-out games count their epochs from here, where no training gets.
_HELD_OUT = 1 << 40


@dataclasses.dataclass(frozen=True)
class OthelloGames:
    """Random games; every visit has its own, so that no game is seen twice.

    Attributes:
        count: how many there are in an epoch.
        held_out: whether these are games that training never visits.
    """

    count: int
    held_out: bool = False

    def __len__(self) -> int:
        return self.count

    def games(self, visits: Sequence[Visit]) -> tuple[np.ndarray, np.ndarray]:
        """The moves of games and which were legal; see `othello.random_games`."""
        if self.held_out:
            visits = [visit._replace(epoch=visit.epoch + _HELD_OUT) for visit in visits]
        return random_games(np.stack([visit.generator().random(LONGEST) for visit in visits]))

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """See `rows_of`."""
        return rows_of(*self.games(visits))

    def padding(self, visit: Visit) -> HostBatch:
        """A row without labels."""
        return _no_game()


@dataclasses.dataclass(frozen=True, eq=False)
class KnownGames:
    """Games that were written down, as examples.

    Attributes:
        transcripts: the games.
    """

    transcripts: Transcripts

    def __len__(self) -> int:
        return len(self.transcripts.moves)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """See `rows_of`."""
        chosen = np.array([visit.example for visit in visits])
        return rows_of(self.transcripts.moves[chosen], self.transcripts.allowed[chosen])

    def padding(self, visit: Visit) -> HostBatch:
        """A row without labels."""
        return _no_game()


def rows_of(moves: Int[np.ndarray, "B t"], allowed: Bool[np.ndarray, "B t S"]) -> HostBatch:
    """`tokens` and `labels`, `[B, 60]`, and `legal`, `[B, 60, V]`: which tokens may follow."""
    tokens = np.full(moves.shape, BEGIN, np.int32)
    tokens[:, 1:] = np.maximum(moves[:, :-1], -1) + 1
    labels = np.where(moves >= 0, moves + 1, IGNORED).astype(np.int32)
    begins = np.zeros((*moves.shape, 1), bool)
    return {
        "tokens": tokens,
        "labels": labels,
        "legal": np.concatenate([begins, allowed], axis=-1),
    }


def _no_game() -> HostBatch:
    """A row without labels."""
    shape = (1, LONGEST)
    return {
        "tokens": np.full(shape, BEGIN, np.int32),
        "labels": np.full(shape, IGNORED, np.int32),
        "legal": np.zeros((*shape, SQUARES + 1), bool),
    }
