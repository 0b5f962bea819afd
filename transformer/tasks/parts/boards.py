"""What the tasks on games with stones in a row share: the solved game, losses and final scores."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.data.games.positions import Game, Positions
from transformer.data.games.rows import RowGame
from transformer.data.games.solving import Solved, keys_of, solve
from transformer.data.order import Batches
from transformer.data.rows import RowSource
from transformer.errors import ConfigError
from transformer.limits import BatchSize
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.pictures.boards import draw_boards
from transformer.scoring.games import Mover, all_games
from transformer.tasks.parts import batching
from transformer.tasks.parts.models import Model
from transformer.tasks.parts.playing import BoardPlayer, BoardRun, Judgement, judged
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.searching import require_search, searched_moves
from transformer.types import Data, Json, Params

# How many positions are drawn, and of how many at most the scores at the end are.
_DRAWN, _SCORED = 8, 200_000
_TIC_TAC_TOE = RowGame()


class BoardData(NamedTuple):
    """A solved game, and which of its positions are for what.

    Attributes:
        solved: all positions.
        train: `[n]`, the positions to train on.
        validation: `[m]`, the positions to validate on.
    """

    solved: Solved
    train: Int[np.ndarray, " n"]
    validation: Int[np.ndarray, " m"]


@dataclasses.dataclass(frozen=True)
class BoardTask:
    """The fields and methods of tasks on games with stones in a row.

    Attributes:
        game: the rules; it must be small enough to be solved.
        batch_size: B, examples per step over all hosts and microbatches.
        validation_batch_size: positions per validation batch; None takes `batch_size`.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_squares",)
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_squares",)
    entry: ClassVar[str] = "evaluate"
    model_kind: ClassVar[type] = BoardPlayer

    game: RowGame = _TIC_TAC_TOE
    batch_size: BatchSize = 128
    validation_batch_size: BatchSize | None = None

    def load(self, workdir: Path | None) -> BoardData:
        """Solves the game; all positions are for both training and validation."""
        del workdir
        solved = solve(self.game)
        every = np.arange(len(solved.values))
        return BoardData(solved, every, every)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> BoardData:
        """There are no other positions than those of the game."""
        raise ConfigError("a game has no files: evaluate its run without --path.")

    def save(self, data: BoardData, workdir: Path) -> None:
        """Nothing: the rules are in the config."""

    def dimensions(self, data: BoardData) -> dict[str, int]:
        """The number of squares."""
        return {"num_squares": self.game.rows * self.game.columns}

    def fingerprint(self, data: BoardData) -> str:
        """Changes with the rules and with the positions to train on."""
        digest = hashlib.sha256(np.ascontiguousarray(data.solved.best).tobytes())
        digest.update(data.train.tobytes())
        return digest.hexdigest()[:32]

    def check_model(self, model: BoardPlayer) -> None:
        """Every model of the right kind can do the job."""

    def batch_rows(self, data: Data) -> tuple[int]:
        """B."""
        return (self.batch_size,)

    def validation_batches(self, data: BoardData) -> Batches:
        """`boards`, their `best` moves and `results`, and `valid`, each position once."""
        return batching.validation_batches(self, self.solutions(data.solved, data.validation))

    def solutions(self, solved: Solved, chosen: Int[np.ndarray, " n"]) -> RowSource:
        """Positions as examples, with their solutions."""
        rows = {
            "boards": solved.positions.boards[chosen].astype(np.int32),
            "best": solved.best[chosen],
            "results": solved.values[chosen].astype(np.int32) + 1,
        }
        return RowSource(rows)

    def example_inputs(self, model: BoardPlayer) -> tuple[Int[Array, "1 S"]]:
        """One board."""
        return (jnp.zeros((1, self.game.rows * self.game.columns), jnp.int32),)

    # ------------------------------------------------------------------------------- playing

    def rules(self) -> RowGame:
        """The game."""
        return self.game

    def judge(
        self, model: Model, params: Params, positions: Positions, moves: Int[np.ndarray, "B t"]
    ) -> Judgement:
        """What the model thinks of positions; how they came about makes no difference."""
        return judged(model, params, positions.boards)

    def best_by_search(
        self, model: BoardPlayer, params: Params, positions: Positions, simulations: int
    ) -> Int[np.ndarray, "B"]:
        """The moves that Gumbel MuZero's search finds with the model and the rules."""
        require_search()
        return searched_moves(model, params, self.game, positions, simulations)

    # ----------------------------------------------------------------------------- the end

    def scores(self, model: BoardPlayer, params: Params, data: BoardData) -> Json:
        """Shares of right answers over positions, and the results of all games.

        `legal`, `best_move` and `value_accuracy` are of every reachable position in which the game
        goes on, or of 200,000 of them; those that end in `_held_out` of the validation positions,
        if these are not in training.
        """
        solved = data.solved
        every = sample(len(solved.values), _SCORED)
        scores = self._right(model, params, solved, every, "")
        if len(data.train) < len(solved.values):
            scores |= self._right(model, params, solved, data.validation, "_held_out")
        player = BoardRun(model, params)
        others: dict[str, Mover] = {"perfect": best_moves(solved), "random": self.game.legal}
        for name, other in others.items():
            for side, begins in enumerate(("first", "second")):
                results = all_games(self.game, player, other, side)
                for result in ("win", "draw", "loss"):
                    scores[f"{result}_against_{name}_{begins}"] = getattr(results, result)
        return scores

    def _right(
        self,
        model: BoardPlayer,
        params: Params,
        solved: Solved,
        chosen: Int[np.ndarray, " n"],
        ending: str,
    ) -> dict[str, float]:
        """The shares of some positions in which the model is right."""
        positions, rows = solved.positions.take(chosen), np.arange(len(chosen))
        found = judged(model, params, positions.boards)
        moves = found.moves()
        right = {
            "legal": self.game.legal(positions)[rows, moves],
            "best_move": solved.best[chosen, moves],
            "value_accuracy": np.rint(found.values) == solved.values[chosen],
        }
        return {f"{name}{ending}": float(values.mean()) for name, values in right.items()}

    def show(self, model: BoardPlayer, params: Params, data: BoardData, workdir: Path) -> Shown:
        """Shows the scores, and draws what the model thinks of some positions in `moves.png`."""
        scores = self.scores(model, params, data)
        solved = data.solved
        chosen = np.random.default_rng(0).choice(len(data.validation), _DRAWN - 1)
        rows = np.concatenate([[0], np.sort(data.validation[chosen])])
        positions = solved.positions.take(rows)
        draw_judgement(
            self.game, positions, judged(model, params, positions.boards), workdir / "moves.png"
        )
        lines = [f"{name:<32} {value:.4f}" for name, value in scores.items()]
        return Shown("\n".join([self.game.title, *lines]), scores)


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
