"""Random games of Othello as examples, made when they are visited."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from transformer.data.games.move_tokens import BEGIN
from transformer.data.games.othello import LONGEST, SQUARES, random_games
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
        """`tokens` and `labels`, `[B, 60]`, and `legal`, `[B, 60, V]`: which tokens may follow."""
        moves, allowed = self.games(visits)
        tokens = np.full(moves.shape, BEGIN, np.int32)
        tokens[:, 1:] = np.maximum(moves[:, :-1], -1) + 1
        labels = np.where(moves >= 0, moves + 1, IGNORED).astype(np.int32)
        begins = np.zeros((*moves.shape, 1), bool)
        return {
            "tokens": tokens,
            "labels": labels,
            "legal": np.concatenate([begins, allowed], axis=-1),
        }

    def padding(self, visit: Visit) -> HostBatch:
        """A row without labels."""
        shape = (1, LONGEST)
        return {
            "tokens": np.full(shape, BEGIN, np.int32),
            "labels": np.full(shape, IGNORED, np.int32),
            "legal": np.zeros((*shape, SQUARES + 1), bool),
        }
