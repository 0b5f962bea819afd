"""What the tasks on games with stones in a row share: the solved game, losses and final scores."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.composition import FLAT
from transformer.data.games.positions import Game, Positions
from transformer.data.games.rows import RowGame
from transformer.data.games.solving import Solved, keys_of
from transformer.data.order import Batches
from transformer.data.rows import RowSource
from transformer.data.source import Source
from transformer.errors import ConfigError
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.pictures.boards import draw_boards
from transformer.scoring.games import Mover, all_games
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.playing import BoardPlayer, BoardRun, Judgement, judged
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.searching import require_search, searched_moves
from transformer.types import Json, Params

# How many positions are drawn, and of how many at most the scores at the end are.
_DRAWN, _SCORED = 8, 200_000
_TIC_TAC_TOE, _ROWS = RowGame(), FixedRows(128)


@dataclasses.dataclass(frozen=True)
class Board:
    """The part of tasks on games with stones in a row: the rules, and the rows of a batch.

    Attributes:
        game: the rules; it must be small enough to be solved.
        rows: the positions or boards of a batch.
    """

    game: RowGame = _TIC_TAC_TOE
    rows: Annotated[FixedRows, FLAT] = _ROWS

    @property
    def num_squares(self) -> int:
        """S."""
        return self.game.rows * self.game.columns

    def example_inputs(self) -> tuple[Int[Array, "1 S"]]:
        """One board."""
        return (jnp.zeros((1, self.num_squares), jnp.int32),)

    def best_by_search(
        self, model: BoardPlayer, params: Params, positions: Positions, simulations: int
    ) -> Int[np.ndarray, "B"]:
        """The moves that Gumbel MuZero's search finds with the model and the rules."""
        require_search()
        return searched_moves(model, params, self.game, positions, simulations)


class Lessons(NamedTuple):
    """What a task on a board game trains on.

    Attributes:
        text: what it is, in a sentence.
        count: how many examples an epoch has.
        source: makes them, when training begins: they may be many.
        shuffled: whether each epoch visits them in a new order; otherwise in their own.
        squares: how many squares are read for an example.
    """

    text: str
    count: int
    source: Callable[[], Source]
    shuffled: bool
    squares: int


@dataclasses.dataclass(frozen=True, eq=False)
class BoardData:
    """A solved game, which of its positions are for what, and what is trained on.

    Attributes:
        board: the rules, and the rows of a batch.
        solved: all positions.
        train: `[n]`, the positions that training may see.
        validation: `[m]`, the positions to validate on.
        lessons: what is trained on.
    """

    board: Board
    solved: Solved
    train: Int[np.ndarray, " n"]
    validation: Int[np.ndarray, " m"]
    lessons: Lessons

    def describe(self) -> str:
        """The game, and what is trained on."""
        return f"{self.board.game.title}: {self.lessons.text}"

    def save(self, workdir: Path) -> None:
        """Nothing: the rules are in the config."""

    def dimensions(self) -> dict[str, int]:
        """The number of squares."""
        return {"num_squares": self.board.num_squares}

    def fingerprint(self) -> str:
        """Changes with the rules and with the positions to train on."""
        digest = hashlib.sha256(np.ascontiguousarray(self.solved.best).tobytes())
        digest.update(self.train.tobytes())
        return digest.hexdigest()[:32]

    def pace(self) -> Pace:
        """Examples are those of the lessons; tokens are the squares that are read."""
        return self.board.rows.pace(self.lessons.count, self.lessons.squares)

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.board.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """The lessons, epoch after epoch."""
        source, shuffled = self.lessons.source(), self.lessons.shuffled
        return self.board.rows.train_batches(
            source, seed=seed, num_steps=num_steps, shuffled=shuffled
        )

    def validation_batches(self) -> Batches:
        """`boards`, their `best` moves and `results`, and `valid`, each position once."""
        return self.board.rows.validation_batches(solutions(self.solved, self.validation))

    # ----------------------------------------------------------------------------- the end

    def scores(self, model: BoardPlayer, params: Params) -> Json:
        """Shares of right answers over positions, and the results of all games.

        `legal`, `best_move` and `value_accuracy` are of every reachable position in which the game
        goes on, or of 200,000 of them; those that end in `_held_out` of the validation positions,
        if these are not in training.
        """
        solved = self.solved
        every = sample(len(solved.values), _SCORED)
        scores = self._right(model, params, every, "")
        if len(self.train) < len(solved.values):
            scores |= self._right(model, params, self.validation, "_held_out")
        player = BoardRun(model, params)
        others: dict[str, Mover] = {"perfect": best_moves(solved), "random": self.board.game.legal}
        for name, other in others.items():
            for side, begins in enumerate(("first", "second")):
                results = all_games(self.board.game, player, other, side)
                for result in ("win", "draw", "loss"):
                    scores[f"{result}_against_{name}_{begins}"] = getattr(results, result)
        return scores

    def _right(
        self,
        model: BoardPlayer,
        params: Params,
        chosen: Int[np.ndarray, " n"],
        ending: str,
    ) -> dict[str, float]:
        """The shares of some positions in which the model is right."""
        solved = self.solved
        positions, rows = solved.positions.take(chosen), np.arange(len(chosen))
        found = judged(model, params, positions.boards)
        moves = found.moves()
        right = {
            "legal": self.board.game.legal(positions)[rows, moves],
            "best_move": solved.best[chosen, moves],
            "value_accuracy": np.rint(found.values) == solved.values[chosen],
        }
        return {f"{name}{ending}": float(values.mean()) for name, values in right.items()}

    def show(self, model: BoardPlayer, params: Params, workdir: Path) -> Shown:
        """Shows the scores, and draws what the model thinks of some positions in `moves.png`."""
        scores = self.scores(model, params)
        solved = self.solved
        chosen = np.random.default_rng(0).choice(len(self.validation), _DRAWN - 1)
        rows = np.concatenate([[0], np.sort(self.validation[chosen])])
        positions = solved.positions.take(rows)
        draw_judgement(
            self.board.game,
            positions,
            judged(model, params, positions.boards),
            workdir / "moves.png",
        )
        lines = [f"{name:<32} {value:.4f}" for name, value in scores.items()]
        return Shown("\n".join([self.board.game.title, *lines]), scores)


def require_no_files() -> NoReturn:
    """Refuses other positions to validate on than those of the game.

    Raises:
        ConfigError: always.
    """
    raise ConfigError("a game has no files: evaluate its run without --path.")


def solutions(solved: Solved, chosen: Int[np.ndarray, " n"]) -> RowSource:
    """Positions as examples, with their solutions."""
    rows = {
        "boards": solved.positions.boards[chosen].astype(np.int32),
        "best": solved.best[chosen],
        "results": solved.values[chosen].astype(np.int32) + 1,
    }
    return RowSource(rows)


def draw_judgement(game: Game, positions: Positions, judgement: Judgement, path: Path) -> None:
    """Draws positions with what a model thinks of each move, and of the result."""
    shape = (-1, *game.shape)
    names = ("dark", "light")
    titles = [f"{names[player]} to move" for player in positions.players]
    if judgement.values is not None:
        titles = [
            f"{title}: {round(value, 2) + 0.0:+.2f}"
            for title, value in zip(titles, judgement.values.tolist(), strict=True)
        ]
    draw_boards(
        positions.absolute().reshape(shape),
        judgement.probabilities.reshape(shape),
        np.asarray(game.legal(positions)).reshape(shape),
        titles,
        path,
    )


def sample(count: int, most: int) -> Int[np.ndarray, " n"]:
    """The numbers of all things, or of `most` of them, drawn always in the same way."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def best_moves(solved: Solved) -> Mover:
    """The moves of a perfect player."""
    keys = keys_of(solved.positions.boards)
    order = np.argsort(keys)
    keys = keys[order]

    def allowed(positions: Positions) -> Bool[np.ndarray, "B S"]:
        return solved.best[order[np.searchsorted(keys, keys_of(positions.boards))]]

    return allowed


def divergences(moves: Float[Array, "B S"], targets: Float[Array, "B S"]) -> Float[Array, "B"]:
    """The Kullback-Leibler divergence of each policy from its target, in nats.

    Args:
        moves: the scores of the moves.
        targets: the probability that each move should have.
    """
    wanted = jnp.log(jnp.maximum(targets, jnp.finfo(jnp.float32).tiny))
    return jnp.sum(jnp.where(targets > 0, targets * (wanted - jax.nn.log_softmax(moves)), 0.0), -1)


def surprises(moves: Float[Array, "B S"], best: Bool[Array, "B S"]) -> Float[Array, "B"]:
    """Minus the log of the probability that a policy plays one of the best moves, in nats.

    Unlike the divergence from an even choice, it is 0 for a policy that insists on one of them.
    """
    chosen = jax.nn.logsumexp(moves, axis=-1, where=best)
    return jax.nn.logsumexp(moves, axis=-1) - chosen


def board_losses(
    policy_losses: Float[Array, "B"],
    right: Bool[Array, "B"],
    results: Float[Array, "B 3"],
    labels: Int[Array, "B"],
    valid: Bool[Array, "B"],
    judged: Bool[Array, "B"],
) -> Losses:
    """The loss of the policy, and the cross-entropy of the result.

    Args:
        policy_losses: of each row.
        right: whether the most probable move is a good one.
        results: the scores of the results.
        labels: the result: 0 loss, 1 draw, 2 win.
        valid: which rows count for the policy.
        judged: which rows count for the result, too.
    """
    policy_loss = jnp.sum(jnp.where(valid, policy_losses, 0.0))
    of_result = cross_entropy(results, jnp.where(judged, labels, IGNORED))
    weight = jnp.sum(valid).astype(jnp.float32)
    num_judged = jnp.sum(of_result.weight)
    # Where few results count, each counts for more, so that policy and value stay in balance.
    value_loss = jnp.sum(of_result.nll) * weight / jnp.maximum(num_judged, 1.0)
    objective = policy_loss + value_loss
    metrics = {
        "loss": objective,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "accuracy": jnp.sum(right & valid).astype(jnp.float32),
        "value_accuracy": jnp.sum(of_result.correct),
    }
    return Losses(objective, weight, metrics, {"value_accuracy": num_judged})


def allows(allowed: Bool[Array, "B S"], moves: Float[Array, "B S"]) -> Bool[Array, "B"]:
    """Whether the most probable moves are among the allowed ones."""
    chosen = jnp.argmax(moves, axis=-1)[:, None]
    return jnp.take_along_axis(allowed, chosen, axis=-1)[:, 0]
