"""Players of board games, among them runs, and matches between them."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from transformer.data.games.minimax import minimax_moves
from transformer.data.games.positions import Game, Positions, num_squares
from transformer.data.games.rows import RowGame
from transformer.data.games.solving import solve
from transformer.errors import ConfigError
from transformer.runs.opening import Run, open_run
from transformer.scoring.games import Mover
from transformer.tasks.parts.boards import best_moves
from transformer.tasks.parts.playing import Judgement, Plays, Searches

# Players that are no runs.
BUILT_IN = ("random", "perfect", "minimax:DEPTH")
# Minimax visits all positions up to its depth at once.
_DEEPEST = 6


@runtime_checkable
class Player(Protocol):
    """Chooses moves."""

    @property
    def name(self) -> str:
        """What the player is called in a table."""
        ...

    def choose(
        self, positions: Positions, moves: Int[np.ndarray, "B t"], random: np.random.Generator
    ) -> Int[np.ndarray, "B"]:
        """A legal move in each position.

        Args:
            positions: B positions in which the game is not over.
            moves: the moves that have led there.
            random: draws where the player is not certain.
        """
        ...


@dataclasses.dataclass(frozen=True)
class RunPlayer:
    """A run: its most probable legal moves, moves drawn by their probability, or those of a search.

    Attributes:
        run: an open run of a task that plays.
        temperature: 0 takes the most probable move; 1 draws by the model's own probabilities.
        simulations: how many positions it looks at before a move; 0 does not look ahead.
    """

    run: Run
    temperature: float = 0.0
    simulations: int = 0

    @property
    def name(self) -> str:
        """The folder of the run."""
        return str(self.run.workdir)

    @property
    def game(self) -> Game:
        """The game that the run plays."""
        return self._task().rules()

    def judge(self, positions: Positions, moves: Int[np.ndarray, "B t"]) -> Judgement:
        """What the model thinks of positions."""
        return self._task().judge(self.run.model, self.run.params, positions, moves)

    def choose(
        self, positions: Positions, moves: Int[np.ndarray, "B t"], random: np.random.Generator
    ) -> Int[np.ndarray, "B"]:
        """The most probable legal moves, drawn ones, or those that a search finds."""
        if self.simulations:
            task = self.run.task
            assert isinstance(task, Searches)
            return task.best_by_search(self.run.model, self.run.params, positions, self.simulations)
        legal = np.asarray(self.game.legal(positions))
        chances = self.judge(positions, moves).probabilities
        if not self.temperature:
            return np.where(legal, chances, -1.0).argmax(-1)
        scores = np.log(np.maximum(chances, 1e-30)) / self.temperature
        # The Gumbel trick: the largest is drawn with the right probability.
        return np.where(legal, scores + random.gumbel(size=scores.shape), -np.inf).argmax(-1)

    def _task(self) -> Plays:
        assert isinstance(self.run.task, Plays)
        return self.run.task


@dataclasses.dataclass(frozen=True)
class RulePlayer:
    """A player without a model: one of its moves, each with equal probability.

    Attributes:
        name: what it is called.
        allowed: which moves it takes in each position.
    """

    name: str
    allowed: Mover

    def choose(
        self, positions: Positions, moves: Int[np.ndarray, "B t"], random: np.random.Generator
    ) -> Int[np.ndarray, "B"]:
        """Moves drawn from those that it takes."""
        allowed: Bool[np.ndarray, "B S"] = np.asarray(self.allowed(positions))
        return np.where(allowed, random.random(allowed.shape), -1.0).argmax(-1)


class Score(NamedTuple):
    """The games of a match, counted for the first player."""

    wins: int
    draws: int
    losses: int

    @property
    def points(self) -> float:
        """A draw is half a win."""
        return self.wins + 0.5 * self.draws


def open_player(
    workdir: Path, checkpoint: str, temperature: float, simulations: int = 0
) -> RunPlayer:
    """A run as a player.

    Args:
        workdir: the run folder.
        checkpoint: which checkpoint.
        temperature: see `RunPlayer`.
        simulations: see `RunPlayer`.

    Raises:
        ConfigError: if the run plays no game, or is to look ahead in one whose rules no search
            knows.
    """
    run = open_run(workdir, checkpoint)
    if not isinstance(run.task, Plays):
        raise ConfigError(
            f"{workdir} was trained for {run.config.task.name}, which plays no board game."
        )
    if simulations and not isinstance(run.task, Searches):
        raise ConfigError(
            f"{workdir} was trained for {run.config.task.name}, which cannot look ahead: leave "
            f"--simulations out."
        )
    if simulations and temperature:
        raise ConfigError("--simulations takes the best move found: leave --temperature out.")
    return RunPlayer(run, temperature, simulations)


def player_named(
    name: str, game: Game, checkpoint: str, temperature: float, simulations: int = 0
) -> Player:
    """A player by the name that a user gives.

    Args:
        name: `random`, `perfect`, `minimax:4`, or a run folder.
        game: the game that it must play.
        checkpoint: the checkpoint of a run.
        temperature: see `RunPlayer`.
        simulations: see `RunPlayer`.

    Raises:
        ConfigError: if it plays another game, or the game is too large for it.
    """
    if name == "random":
        return RulePlayer(name, game.legal)
    if name == "perfect" and isinstance(game, RowGame):
        return RulePlayer(name, best_moves(solve(game)))
    kind, _, depth = name.partition(":")
    if kind == "minimax" and depth.isascii() and depth.isdecimal() and isinstance(game, RowGame):
        if not 1 <= int(depth) <= _DEEPEST:
            raise ConfigError(f"{name}: minimax looks 1 to {_DEEPEST} moves ahead.")
        return RulePlayer(name, lambda positions: minimax_moves(game, positions, int(depth)))
    if kind in ("perfect", "minimax") and not Path(name).exists():
        raise ConfigError(
            f"there is no player {name} of {game.title}: choose from {', '.join(BUILT_IN)} (of "
            f"games with stones in a row), or give a run folder."
        )
    player = open_player(Path(name), checkpoint, temperature, simulations)
    if player.game != game:
        raise ConfigError(
            f"{name} plays {player.game.title}, and the others play {game.title}: only runs of the "
            f"same game can meet."
        )
    return player


def match(
    game: Game, first: Player, second: Player, *, games: int, random_moves: int, seed: int
) -> Score:
    """Plays games at the same time; each opening is played twice, with sides exchanged.

    Args:
        game: the rules.
        first: the player for whom the games are counted.
        second: the other.
        games: how many; rounded up to an even number.
        random_moves: how many random moves each game begins with.
        seed: the seed of all that is random.
    """
    random = np.random.default_rng(seed)
    half = (games + 1) // 2
    positions, moves = _openings(game, half, random_moves, random)
    positions = Positions(*(np.concatenate([array, array]) for array in positions))
    moves = np.concatenate([moves, moves])
    # Which side the first player has.
    sides = np.repeat(np.array([0, 1], np.int8), half)
    while (in_play := np.asarray(game.legal(positions)).any(-1)).any():
        chosen = np.zeros(len(sides), np.int64)
        for player, mine in ((first, positions.players == sides), (second, None)):
            rows = np.flatnonzero(in_play & (positions.players != sides if mine is None else mine))
            if len(rows):
                chosen[rows] = player.choose(positions.take(rows), moves[rows], random)
        positions, moves = _moved(game, positions, moves, chosen, in_play)
    worth = np.asarray(game.outcomes(positions)) * np.where(positions.players == sides, 1, -1)
    return Score(*(int((worth == value).sum()) for value in (1, 0, -1)))


def table(
    game: Game, players: Sequence[Player], *, games: int, random_moves: int, seed: int
) -> tuple[Float[np.ndarray, "n n"], dict[tuple[int, int], Score]]:
    """Every player against every other: points, and the score of each match."""
    points = np.zeros((len(players), len(players)))
    scores = {}
    for one, other in itertools.combinations(range(len(players)), 2):
        score = match(
            game,
            players[one],
            players[other],
            games=games,
            random_moves=random_moves,
            seed=seed,
        )
        scores[one, other] = score
        points[one, other], points[other, one] = score.points, sum(score) - score.points
    return points, scores


def _openings(
    game: Game, count: int, random_moves: int, random: np.random.Generator
) -> tuple[Positions, np.ndarray]:
    """Positions after random moves that do not end the game."""
    positions, moves = game.start(count), np.zeros((count, 0), np.int64)
    for _ in range(random_moves):
        legal = np.asarray(game.legal(positions))
        chosen = np.where(legal, random.random(legal.shape), -1.0).argmax(-1)
        after, more = _moved(game, positions, moves, chosen, legal.any(-1))
        if not np.asarray(game.legal(after)).any(-1).all():
            raise ConfigError(
                f"--random_moves is {random_moves}: some games of {game.title} with "
                f"{num_squares(game)} squares are over by then. Give fewer."
            )
        positions, moves = after, more
    return positions, moves


def _moved(
    game: Game, positions: Positions, moves: np.ndarray, chosen: np.ndarray, in_play: np.ndarray
) -> tuple[Positions, np.ndarray]:
    """The games after one more move in those that go on; elsewhere the move is -1."""
    rows = np.flatnonzero(in_play)
    boards, players = (array.copy() for array in positions)
    after = game.after(positions.take(rows), chosen[rows])
    boards[rows], players[rows] = after.boards, after.players
    added = np.where(in_play, chosen, -1)[:, None]
    return Positions(boards, players), np.concatenate([moves, added], axis=1)
