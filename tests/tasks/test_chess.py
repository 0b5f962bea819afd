"""Games of chess: reading files, and learning the next move."""

import gzip
import random

import pytest
from ml_collections import ConfigDict

from tests.runs import assert_same_run, logged
from transformer.composition import with_fields
from transformer.data.games.chess_games import ChessGames, chess_tokenizer
from transformer.data.games.chess_moves import legal_moves, move_names, num_legal, read_games
from transformer.data.source import Visit
from transformer.errors import ConfigError, DataError
from transformer.runs.opening import open_run
from transformer.tasks.chess_moves import ChessMoves
from transformer.training.loop import train
from transformer.training.sections import section
from transformer.training.shared import Shared

chess = pytest.importorskip("chess", reason="pip install -e '.[chess]'")
WRITTEN = """[White "Ann"]
[Black "Bob \\"B\\" B"]

1. e4 {of (a) kind, 1-0} e5 ; and so on
2.Nf3!? (2. f4 exf4 (2... d6)) 2... Nc6$2 3 Bb5 a6 4. Bxc6 dxc6 5. O-O 1-0

[Event "none"]

*
1. d4 d5 2. c4 1/2-1/2
"""
READ = ["e2e4 e7e5 g1f3 b8c6 f1b5 a7a6 b5c6 d7c6 e1g1", "d2d4 d7d5 c2c4"]


@pytest.fixture(scope="module")
def pgn(tmp_path_factory):
    """Random games, packed."""
    source, games = random.Random(0), []
    for _ in range(24):
        board = chess.Board()
        while not board.is_game_over() and len(board.move_stack) < 6 + len(games) % 3:
            board.push(source.choice(list(board.legal_moves)))
        games.append(chess.Board().variation_san(board.move_stack) + " *\n\n")
    path = tmp_path_factory.mktemp("chess") / "games.pgn.gz"
    path.write_bytes(gzip.compress("".join(games).encode(), mtime=0))
    return path


def test_every_move_has_a_name():
    names = set(move_names())
    assert len(names) == len(move_names()) == 1968
    source, seen = random.Random(0), set()
    for _ in range(30):
        board = chess.Board()
        while not board.is_game_over():
            seen |= {move.uci() for move in board.legal_moves}
            board.push(source.choice(list(board.legal_moves)))
    assert seen <= names
    assert any(len(name) == 5 for name in seen)


def test_files_as_people_write_them(tmp_path):
    path = tmp_path / "games.pgn"
    path.write_text(WRITTEN.replace("\n", "\r\n"))
    assert [" ".join(moves) for moves in read_games([path])] == READ


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1. e4 e5 2. Nf6 *", r"game 1: move 2\. Nf6 is illegal \(line 1\)"),
        ('[White "A"]\n\n1. e4\ne5 2. Nf3 Nd7 *', r"game 1 \(A - \?\): move 2\.\.\. Nd7 is ill.*4"),
        ("1. d4 * 1. e4 e5 2. Qh9 *", r"game 2: move 2\. Qh9 is no move"),
        ("1. Nf3 a6 2. Nc3 h6 3. Nb5 h5 4. Nd4 *", r"move 4\. Nd4 is ambiguous"),
        ("1. e4 -- 2. d4 *", r"move 1\.\.\. -- is no move"),
        ("1. e4 e5 2. @@ Nf3 *", r"move 2\. @@ is no move"),
        ("1. e4 (1. d4 e5\n", r"move 1\.\.\. \( is no move \(line 1\)"),
        ("1. e4 ) e5", r"move 1\.\.\. \) is no move"),
        ("1. e4 {unclosed", "{ is no move|{unclosed is no move"),
        ("once upon a time", r"move 1\. once is no move"),
        ('[Variant "Atomic"]\n\n1. e4 *', "rules of Atomic"),
        ('[FEN "8/8/8/8/8/8/8/K6k w - - 0 1"]\n\n1. Ka2 *', "begins from another position"),
        ('[Event "x"]\n\n*', "no game of chess with moves"),
    ],
)
def test_what_is_no_game_is_named(text, said, tmp_path):
    path = tmp_path / "bad.pgn"
    path.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_games([path])
    assert str(path) in str(caught.value)


def test_legal_moves():
    assert num_legal(["e2e4", "e7e5", "e4e5", "a2a3"]) == 2
    assert num_legal(["e2e4", "e9"]) == 1
    first, second = legal_moves(["e2e4", "e7e5"])
    assert len(first) == len(second) == 20
    assert "g1f3" in first and "g8f6" in second


def test_rows_are_games():
    tokenizer = chess_tokenizer()
    games = [tokenizer.encode(text) for text in READ]
    batch = ChessGames(games, 5).batch([Visit(1), Visit(0)])
    assert batch["tokens"].tolist() == [[0, *games[1][:2], 0, 0], [0, *games[0][:4]]]
    assert batch["labels"].tolist() == [[*games[1], -100, -100], games[0][:5].tolist()]


def test_a_file_is_needed(pgn, tmp_path):
    with pytest.raises(ConfigError, match=r"--config\.task\.train=games\.pgn"):
        ChessMoves().load(None)
    path = tmp_path / "one.pgn"
    path.write_text("1. e4 *")
    with pytest.raises(DataError, match=r"too few games \(1\) .*config\.task\.validation"):
        with_fields(ChessMoves(), train=str(path)).load(None)
    data = with_fields(ChessMoves(), train=str(pgn), validation=str(path)).load(None)
    assert (len(data.train), len(data.validation)) == (24, 1)


def test_it_learns_and_goes_on_with_the_same_bits(pgn, tmp_path):
    config = ConfigDict({name: section(name) for name in ("optimizer", "train", "mesh")})
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=16, context=8)
    config.task = section("task", "chess_moves", train=str(pgn), batch_size=4, max_moves=8)
    config.optimizer.update({"warmup": "1 steps", "learning_rate": 1e-2})
    config.train.update({"duration": "8 steps", "tensorboard": False, "log_every": "1 steps"})
    config.train.save_every = "4 steps"
    shared = Shared()
    assert train(config, tmp_path / "whole", shared=shared, curves=False)[0] == 0
    lines = logged(tmp_path / "whole")
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0]
    (final,) = (line for line in lines if line["split"] == "final")
    assert 0 <= final["illegal"] <= 100
    written = (tmp_path / "whole" / "game.txt").read_text().split()
    assert set(written) <= set(move_names())

    stop = {"should_stop": lambda step, loss: step == 4}
    train(config, tmp_path / "run", shared=shared, curves=False, **stop)
    train(config, tmp_path / "run", shared=shared, curves=False)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    run = open_run(tmp_path / "run")
    other = run.task.load_validation([str(pgn)], tmp_path / "run")
    assert len(other.validation) == 24
