"""Predicting the next move of games of chess, knowing nothing but the moves so far."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from transformer.composition import FLAT
from transformer.data.games.chess_games import ChessGames, chess_tokenizer
from transformer.data.games.chess_moves import legal_moves, num_legal, read_games
from transformer.data.games.move_tokens import MoveTokenizer
from transformer.data.order import Batches
from transformer.data.source import Visit
from transformer.decoding.sample import write
from transformer.errors import ConfigError
from transformer.files import write_text
from transformer.limits import Count, Length
from transformer.ops.logits import Sampling
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.losses import next_token_losses
from transformer.tasks.parts.models import TextDecoder
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.tasks.parts.training_files import TrainingFiles
from transformer.types import Batch, Json, Params


@dataclasses.dataclass(frozen=True, eq=False)
class ChessData:
    """The games of a job, as the tokens of their moves.

    Attributes:
        rows: the games of a batch.
        max_moves: T; of longer games the first moves are read.
        train: games to train on.
        validation: games to validate on.
    """

    rows: FixedRows
    max_moves: int
    train: list[Int[np.ndarray, " _"]]
    validation: list[Int[np.ndarray, " _"]]

    def describe(self) -> str:
        """How many games and moves there are."""
        longer = sum(len(game) > self.max_moves for game in self.train)
        cut = f" ({longer:,} are cut after {self.max_moves})" if longer else ""
        return (
            f"{len(self.train):,} games of chess with {self._moves:,} moves{cut}; "
            f"{len(self.validation):,} others to validate on."
        )

    @property
    def _moves(self) -> int:
        """The number of moves to train on."""
        return sum(min(len(game), self.max_moves) for game in self.train)

    def save(self, workdir: Path) -> None:
        """Nothing: all moves are known from the board."""

    def dimensions(self) -> dict[str, int]:
        """A token for each move, and one for the beginning."""
        return {"vocab_size": chess_tokenizer().vocab_size}

    def fingerprint(self) -> str:
        """Changes with the games."""
        digest = hashlib.sha256()
        for games in (self.train, self.validation):
            for game in games:
                digest.update(len(game).to_bytes(4, "little") + game.tobytes())
            digest.update(b"|")
        return f"{tokenizer_digest(chess_tokenizer())}-{digest.hexdigest()[:32]}"

    def pace(self) -> Pace:
        """Examples are games, tokens are moves."""
        return self.rows.pace(len(self.train), self._moves / len(self.train))

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """See `ChessGames`."""
        source = ChessGames(self.train, self.max_moves)
        return self.rows.train_batches(source, seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        """Every game once."""
        return self.rows.validation_batches(ChessGames(self.validation, self.max_moves))


_ROWS, _FILES = FixedRows(64), TrainingFiles()


@dataclasses.dataclass(frozen=True)
class ChessMoves:
    """Next-move prediction on PGN files; its fields are `config.task`.

    Attributes:
        files: the files, and what is held out of them.
        train: a PGN file, plain or compressed with gzip or xz.
        validation: a PGN file to validate on; empty takes the last games of `train`.
        max_moves: T; of longer games the first moves are read. Each side's move counts.
        scored_games: how many games to validate on are asked for illegal moves at the end.
        rows: the games of a batch.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = TextDecoder
    # How `generate.py` goes on.
    stop: ClassVar[str] = ""
    stop_ids: ClassVar[tuple[int, ...]] = ()
    begin: ClassVar[int | None] = None
    max_new_tokens: ClassVar[int | None] = None

    files: Annotated[TrainingFiles, FLAT] = _FILES
    max_moves: Length = 200
    scored_games: Count = 200
    rows: Annotated[FixedRows, FLAT] = _ROWS

    def load(self, workdir: Path | None) -> ChessData:
        """Reads the games.

        Raises:
            ConfigError: without a file.
            DataError: see `data.games.chess_moves.read_games`; and for too few games.
        """
        train, validation = self.files.train, self.files.validation
        if not train:
            raise ConfigError(
                "which games? Give a PGN file: --config.task.train=games.pgn. They may be packed "
                "with gzip or xz."
            )
        games = _tokens([train])
        if validation:
            return self._data(games, _tokens([validation]))
        count = self.files.num_held_out(len(games), "games")
        return self._data(games[:-count], games[-count:])

    def load_validation(self, paths: Sequence[str], workdir: Path) -> ChessData:
        """The games of other files."""
        games = _tokens(paths)
        return self._data(games, games)

    def _data(
        self, train: list[Int[np.ndarray, " _"]], validation: list[Int[np.ndarray, " _"]]
    ) -> ChessData:
        return ChessData(self.rows, self.max_moves, train, validation)

    def load_tokenizer(self, workdir: Path) -> MoveTokenizer:
        """The tokens of the moves."""
        return chess_tokenizer()

    def sampling(self) -> Sampling:
        """How tokens are chosen: by their probability."""
        return Sampling()

    def check_model(self, model: TextDecoder) -> None:
        """Refuses a model that cannot read the longest game."""
        if model.context < self.max_moves:
            raise ConfigError(
                f"config.model.context is {model.context}: games have up to "
                f"config.task.max_moves = {self.max_moves} moves."
            )

    def example_inputs(self, model: TextDecoder) -> tuple[Int[Array, "1 T"]]:
        """The tokens of one game."""
        return (jnp.zeros((1, self.max_moves), jnp.int32),)

    def losses(
        self, model: TextDecoder, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every move."""
        return next_token_losses(model, params, batch, rngs)

    # ----------------------------------------------------------------------------- the end

    def scores(self, model: TextDecoder, params: Params, data: ChessData) -> Json:
        """`illegal`: in how many positions, in percent, the most probable move is illegal."""
        source = ChessGames(data.validation[: self.scored_games], self.max_moves)
        size = self.rows.in_validation

        @jax.jit
        def expected(params: Params, tokens: Int[Array, "B T"]) -> Int[Array, "B T"]:
            return jnp.argmax(model.apply({"params": params}, tokens)[0], axis=-1)

        tokenizer, asked, wrong = chess_tokenizer(), 0, 0
        for first in range(0, len(source), size):
            games = range(first, min(first + size, len(source)))
            # The last batch is filled up, so that one program serves all.
            rows = source.batch(
                [Visit(min(game, len(source) - 1)) for game in range(first, first + size)]
            )
            best = np.asarray(expected(params, rows["tokens"]))
            for game, row in zip(games, best, strict=False):
                moves = tokenizer.tokens(source.games[game][: self.max_moves])
                legal = legal_moves(moves)
                asked += len(moves)
                wrong += sum(
                    name not in allowed
                    for name, allowed in zip(tokenizer.tokens(row), legal, strict=False)
                )
        return {"illegal": 100.0 * wrong / asked}

    def show(self, model: TextDecoder, params: Params, data: ChessData, workdir: Path) -> Shown:
        """A game that the model plays with itself, also written to `game.txt`."""
        tokenizer = chess_tokenizer()
        (game,) = write(
            model,
            params,
            tokenizer,
            [""],
            max_new_tokens=self.max_moves - 1,
            sampling=self.sampling(),
            seed=0,
        )
        write_text(workdir / "game.txt", f"{game}\n")
        count = num_legal(game.split())
        found = self.scores(model, params, data)
        text = (
            f"{found['illegal']:.2f} percent of the most probable moves are illegal. A game of the "
            f"model, legal for {count} moves: {game}"
        )
        return Shown(text, found)


def _tokens(paths: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
    """The tokens of all games in files."""
    tokenizer = chess_tokenizer()
    return [tokenizer.encode(" ".join(moves)) for moves in read_games(paths)]
