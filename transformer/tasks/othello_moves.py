"""Predicting the next move of random games of Othello, knowing nothing but the moves so far.

The job of Othello-GPT (Li et al. 2023, "Emergent world representations"): a language model reads
moves, never a board, and learns which moves are legal. `scripts/probe_board.py` reads the board out
of its residual stream.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.composition import FLAT
from transformer.data.games.move_tokens import MoveTokenizer
from transformer.data.games.othello import LONGEST, SQUARES, Othello
from transformer.data.games.othello_games import KnownGames, OthelloGames
from transformer.data.games.positions import Positions, square_names
from transformer.data.games.transcripts import Transcripts, read_transcripts
from transformer.data.order import Batches
from transformer.data.source import Visit
from transformer.errors import ConfigError
from transformer.files import write_text
from transformer.limits import Count
from transformer.nn.mixture import LOSSES
from transformer.ops.logits import Sampling
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.boards import draw_judgement
from transformer.tasks.parts.losses import auxiliary_losses
from transformer.tasks.parts.models import Model, TextDecoder
from transformer.tasks.parts.playing import Judgement, judged_tokens
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.types import Batch, Json, Params

# How many positions of a game are drawn.
_DRAWN = 8
_ROWS = FixedRows(64)


@dataclasses.dataclass(frozen=True, eq=False)
class OthelloData:
    """Random games, made when they are needed.

    Attributes:
        rows: the games of a batch.
        epoch_games: games in an epoch.
        validation_games: games to validate on, which training never sees.
        written: games that were written down, to validate on in their place; None for none.
    """

    rows: FixedRows
    epoch_games: int
    validation_games: int
    written: Transcripts | None = None

    def describe(self) -> str:
        """What is played."""
        return (
            f"Random games of Othello, made when they are needed; {self.validation_games:,} others "
            f"to validate on."
        )

    def save(self, workdir: Path) -> None:
        """Nothing: the rules are enough."""

    def dimensions(self) -> dict[str, int]:
        """A token for each square, and one for the beginning."""
        return {"vocab_size": SQUARES + 1}

    def fingerprint(self) -> str:
        """Changes with the held-out games, and so with how games are made."""
        moves, _ = self.held_out.games([Visit(0), Visit(1)])
        digest = hashlib.sha256(moves.tobytes()).hexdigest()[:32]
        return f"{tokenizer_digest(_tokenizer())}-{digest}"

    @property
    def held_out(self) -> OthelloGames:
        """The games that training never sees."""
        return OthelloGames(self.validation_games, held_out=True)

    def pace(self) -> Pace:
        """Examples are games, tokens are moves."""
        return self.rows.pace(self.epoch_games, LONGEST)

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """See `OthelloGames`."""
        # The games define their own order.
        source = OthelloGames(self.epoch_games)
        return self.rows.train_batches(source, seed=seed, num_steps=num_steps, shuffled=False)

    def validation_batches(self) -> Batches:
        """Every game that was written down once, or every held-out game."""
        source = self.held_out if self.written is None else KnownGames(self.written)
        return self.rows.validation_batches(source)


@dataclasses.dataclass(frozen=True)
class OthelloMoves:
    """Next-move prediction on games made on the fly; its fields are `config.task`.

    Attributes:
        epoch_games: games in an epoch, for durations that are written in epochs; every epoch has
            new ones.
        validation_games: games to validate on, which training never sees.
        rows: the games of a batch.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = TextDecoder
    # How `generate.py` goes on: until the board is full.
    stop: ClassVar[str] = ""
    stop_ids: ClassVar[tuple[int, ...]] = ()
    begin: ClassVar[int | None] = None
    max_new_tokens: ClassVar[int | None] = LONGEST

    epoch_games: Count = 100_000
    validation_games: Count = 1000
    rows: Annotated[FixedRows, FLAT] = _ROWS

    def load(self, workdir: Path | None) -> OthelloData:
        """There is nothing to read."""
        return OthelloData(self.rows, self.epoch_games, self.validation_games)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> OthelloData:
        """Games that were written down; see `data.games.transcripts`."""
        return dataclasses.replace(self.load(workdir), written=read_transcripts(paths))

    def load_tokenizer(self, workdir: Path) -> MoveTokenizer:
        """The tokens of the moves."""
        return _tokenizer()

    def sampling(self) -> Sampling:
        """How tokens are chosen: by their probability."""
        return Sampling()

    def check_model(self, model: TextDecoder) -> None:
        """Refuses a model that cannot read a whole game."""
        if model.context < LONGEST:
            raise ConfigError(
                f"config.model.context is {model.context}: a game has {LONGEST} moves."
            )

    def example_inputs(self, model: TextDecoder) -> tuple[Int[Array, "1 T"]]:
        """The tokens of one game."""
        return (jnp.zeros((1, LONGEST), jnp.int32),)

    def losses(
        self, model: TextDecoder, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every move.

        `illegal` is the share of positions in which the most probable move is illegal; `excess` is
        the loss above that of a player who knows the rules, in nats.
        """
        labels = batch["labels"]

        def score(module: TextDecoder) -> Float[Array, "B T V"]:
            features, _ = module.features(batch["tokens"], valid=labels != IGNORED)
            return module.logits(features)

        logits, collected = model.apply(
            {"params": params}, method=score, rngs=rngs, mutable=[LOSSES]
        )
        found = cross_entropy(logits, labels)
        legal = batch["legal"]
        best = jnp.argmax(logits, axis=-1)[..., None]
        allowed = jnp.take_along_axis(legal, best, axis=-1)[..., 0]
        least = jnp.log(jnp.maximum(jnp.sum(legal, axis=-1), 1).astype(jnp.float32))
        nll, weight = jnp.sum(found.nll), jnp.sum(found.weight)
        metrics = {
            "loss": nll,
            "accuracy": jnp.sum(found.correct),
            "illegal": jnp.sum(found.weight * ~allowed),
            "excess": nll - jnp.sum(found.weight * least),
        }
        objective = nll
        for name, value in auxiliary_losses(collected).items():
            metrics[name] = value * weight
            objective += model.loss_scales()[name] * metrics[name]
        return Losses(objective, weight, metrics)

    # ------------------------------------------------------------------------------- playing

    def rules(self) -> Othello:
        """The game."""
        return Othello()

    def judge(
        self, model: Model, params: Params, positions: Positions, moves: Int[np.ndarray, "B t"]
    ) -> Judgement:
        """What the model takes for the next move; it sees the moves, not the board."""
        return judged_tokens(model, params, moves, LONGEST)

    # ----------------------------------------------------------------------------- the end

    def scores(self, model: TextDecoder, params: Params, data: OthelloData) -> Json:
        """No scores besides the metrics of the validation."""
        return {}

    def show(self, model: TextDecoder, params: Params, data: OthelloData, workdir: Path) -> Shown:
        """Shows a held-out game, and draws what the model expects at some of its moves."""
        moves, _ = data.held_out.games([Visit(0)])
        played = moves[0][moves[0] >= 0].astype(np.int64)
        turns = np.linspace(0, len(played) - 1, _DRAWN).round().astype(int)
        game, found, places = self.rules(), [], []
        positions = game.start(1)
        for turn, move in enumerate(played):
            if turn in turns:
                found.append(self.judge(model, params, positions, played[None, :turn]))
                places.append(positions)
            positions = game.after(positions, np.array([move]))
        drawn = Positions(*(np.concatenate(arrays) for arrays in zip(*places, strict=True)))
        chances = np.concatenate([judgement.probabilities for judgement in found])
        draw_judgement(game, drawn, Judgement(chances, None), workdir / "moves.png")
        text = self.load_tokenizer(workdir).decode(played + 1)
        write_text(workdir / "game.txt", f"{text}\n")
        return Shown(f"moves.png shows what the model expects in this game: {text}", {})


def _tokenizer() -> MoveTokenizer:
    """A token for each square."""
    return MoveTokenizer(square_names(Othello()))
