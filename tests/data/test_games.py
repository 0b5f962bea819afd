"""The rules of games, their solutions, and players that need no model."""

import random

import jax.numpy as jnp
import numpy as np
import pytest

from transformer.data.games.minimax import minimax_moves
from transformer.data.games.move_tokens import BEGIN, MoveTokenizer
from transformer.data.games.othello import LONGEST, Othello, boards_of, random_games
from transformer.data.games.othello_games import KnownGames, OthelloGames
from transformer.data.games.positions import Positions, board_of, played, square_names, square_of
from transformer.data.games.rooms import MOVES, Rooms
from transformer.data.games.rows import RowGame
from transformer.data.games.solving import solve
from transformer.data.games.transcripts import read_transcripts
from transformer.data.source import Visit
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED
from transformer.scoring.games import all_games, elo_ratings
from transformer.scoring.probing import fit_linear_probe

TIC_TAC_TOE = RowGame()
CONNECT = RowGame(4, 4, 4, falls=True)


@pytest.fixture(scope="module")
def solved():
    return solve(TIC_TAC_TOE)


@pytest.fixture(scope="module")
def games():
    return random_games(np.random.default_rng(0).random((6, LONGEST)))


def a_board(game, text):
    board = board_of(game, text)
    return Positions(board[None], np.array([int((board > 0).sum() % 2)], np.int8))


def _pairs(solved):
    return solved.positions.boards, solved.values


def test_known_counts(solved):
    # Of the positions of tic-tac-toe 958 are finished; connect four on 4 x 4 is of Tromp's table.
    assert solved.num_reachable == 5478
    assert len(solved.values) == 5478 - 958
    assert solved.values[0] == 0
    small = solve(CONNECT)
    assert (small.num_reachable, small.values[0]) == (161_029, 0)


def test_best_moves_keep_the_value(solved):
    rows, moves = np.nonzero(solved.best)
    after = TIC_TAC_TOE.after(solved.positions.take(rows), moves)
    worth = {key.tobytes(): value for key, value in zip(*_pairs(solved), strict=True)}
    over = ~TIC_TAC_TOE.legal(after).any(-1)
    ends = TIC_TAC_TOE.outcomes(after)
    for row, board, is_over, end in zip(rows, after.boards, over, ends, strict=True):
        assert solved.values[row] == -(end if is_over else worth[board.tobytes()])
    assert (solved.best <= TIC_TAC_TOE.legal(solved.positions)).all()


def test_the_same_rules_on_jax(solved):
    for game, positions in ((TIC_TAC_TOE, solved.positions), (CONNECT, CONNECT.start(2))):
        ours = Positions(*(jnp.asarray(array) for array in positions))
        np.testing.assert_array_equal(game.legal(ours), game.legal(positions))
        moves = np.asarray(game.legal(positions)).argmax(-1)
        for one, other in zip(game.after(ours, moves), game.after(positions, moves), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        np.testing.assert_array_equal(game.outcomes(ours), game.outcomes(positions))


def test_symmetries_change_nothing(solved):
    assert len(TIC_TAC_TOE.symmetries) == 8
    assert len(RowGame(2, 3, 2).symmetries) == 4
    assert len(CONNECT.symmetries) == 2
    values = {key.tobytes(): value for key, value in zip(*_pairs(solved), strict=True)}
    for places in TIC_TAC_TOE.symmetries:
        turned = solved.positions.boards[:, places]
        assert [values[board.tobytes()] for board in turned] == solved.values.tolist()


@pytest.mark.parametrize(
    ("name", "game", "count"),
    [
        ("tic_tac_toe", TIC_TAC_TOE, 20),
        ("connect_four", RowGame(6, 7, 4, falls=True), 10),
        ("othello", Othello(), 4),
    ],
)
def test_rules_are_those_of_an_engine(name, game, count):
    engine = pytest.importorskip("pyspiel", reason="pip install open-spiel").load_game(name)
    source, passes = random.Random(0), 64
    for _ in range(count):
        state, positions = engine.new_initial_state(), game.start(1)
        while not state.is_terminal():
            actions = state.legal_actions()
            if name == "othello" and actions == [passes]:
                state.apply_action(passes)
                continue
            columns = game.shape[1] if name == "connect_four" else 1 << 10
            ours = {int(s) % columns: s for s in np.flatnonzero(game.legal(positions)[0])}
            assert sorted(ours) == sorted(actions)
            assert state.current_player() == positions.players[0]
            action = source.choice(actions)
            state.apply_action(action)
            positions = game.after(positions, np.array([ours[action]]))
        assert not game.legal(positions).any()
        sign = 1 if positions.players[0] == 0 else -1
        assert sign * game.outcomes(positions)[0] == np.sign(state.returns()[0])


def test_minimax_wins_and_does_not_overlook(solved):
    assert minimax_moves(TIC_TAC_TOE, a_board(TIC_TAC_TOE, "xx. oo. ..."), 1)[0].nonzero() == (2,)
    # With enough depth it is perfect.
    late = solved.positions.take(np.flatnonzero((solved.positions.boards > 0).sum(-1) >= 5))
    rows = np.flatnonzero((solved.positions.boards > 0).sum(-1) >= 5)
    np.testing.assert_array_equal(minimax_moves(TIC_TAC_TOE, late, 4), solved.best[rows])


def test_all_games_are_enumerated(solved):
    keys = {key.tobytes(): row for row, key in enumerate(solved.positions.boards)}

    def perfect(positions):
        rows = [keys[board.tobytes()] for board in positions.boards]
        return solved.best[rows].argmax(-1)

    def first_free(positions):
        return TIC_TAC_TOE.legal(positions).argmax(-1)

    found = all_games(TIC_TAC_TOE, perfect, TIC_TAC_TOE.legal, 1)
    assert found.loss == 0.0
    assert found.win + found.draw == pytest.approx(1.0)
    assert all_games(TIC_TAC_TOE, first_free, TIC_TAC_TOE.legal, 1).loss > 0.1
    # A player that always takes the middle plays an illegal move at the latest with its second.
    always = all_games(TIC_TAC_TOE, lambda p: np.full(len(p.boards), 4), TIC_TAC_TOE.legal, 0)
    assert (always.illegal, always.loss, always.positions) == (1.0, 1.0, 9)


def test_elo():
    points = np.array([[0.0, 75.0, 90.0], [25.0, 0.0, 75.0], [10.0, 25.0, 0.0]])
    ratings = elo_ratings(points * 100, 100.0 * 100 * (1 - np.eye(3)))
    # 75 percent are 191 points, and 90 percent are 382: both agree.
    np.testing.assert_allclose(ratings, [190.85, 0, -190.85], atol=0.3)
    assert np.isfinite(elo_ratings(np.array([[0.0, 9.0], [0.0, 0.0]]), 9.0 * (1 - np.eye(2)))).all()


def test_random_games_follow_the_rules(games):
    moves, allowed = games
    boards, game = boards_of(moves), Othello()
    for number, row in enumerate(moves):
        positions = game.start(1)
        for turn, move in enumerate(row[row >= 0]):
            np.testing.assert_array_equal(game.legal(positions)[0], allowed[number, turn])
            positions = game.after(positions, np.array([move]))
            np.testing.assert_array_equal(positions.boards[0], boards[number, turn])
        assert not game.legal(positions).any()


def test_every_visit_has_its_own_game():
    source, held_out = OthelloGames(100), OthelloGames(100, held_out=True)
    visits = [Visit(3, 7, 0), Visit(4, 7, 0), Visit(3, 7, 1), Visit(3, 8, 0)]
    batch = source.batch(visits)
    games = {row.tobytes() for row in batch["tokens"]}
    games |= {row.tobytes() for row in held_out.batch(visits)["tokens"]}
    assert len(games) == 2 * len(visits)
    # A batch is made of its visits alone.
    for number, visit in enumerate(visits):
        for name, rows in source.batch([visit]).items():
            np.testing.assert_array_equal(rows[0], batch[name][number])
    counts = batch["labels"] != IGNORED
    assert (batch["tokens"][:, 0] == BEGIN).all()
    assert (batch["tokens"][:, 1:] == batch["labels"][:, :-1])[counts[:, :-1]].all()
    picked = np.take_along_axis(batch["legal"], np.maximum(batch["labels"], 0)[..., None], -1)
    assert picked[..., 0][counts].all()


def test_moves_are_words():
    tokenizer = MoveTokenizer(square_names(Othello()))
    ids = tokenizer.encode_prompt("f5 D6\n")
    assert ids.tolist() == [BEGIN, 38, 44]
    assert tokenizer.decode(ids) == "f5 d6"
    stream = tokenizer.stream()
    assert "".join(stream.push(i) for i in ids[1:]) + stream.close() == " f5 d6"
    with pytest.raises(DataError, match="'i9' is no move"):
        tokenizer.encode("f5 i9")


def test_bad_positions_are_refused():
    with pytest.raises(DataError, match="10 squares: tic-tac-toe has 9, 3 rows of 3"):
        board_of(TIC_TAC_TOE, "x.. .o. ..x.")
    with pytest.raises(DataError, match="this one has 'k'"):
        board_of(TIC_TAC_TOE, "k.. ... ...")
    with pytest.raises(DataError, match=r"no square 'd1'.*a1 \(top left\) to c3"):
        square_of(TIC_TAC_TOE, "d1")
    with pytest.raises(DataError, match="move 2"):
        played(TIC_TAC_TOE, [4, 4], lambda number: f"move {number + 1}")
    with pytest.raises(ConfigError, match="too many to solve"):
        solve(RowGame(7, 7, 4))
    with pytest.raises(ConfigError, match="in_row is 5"):
        RowGame(4, 4, 5).check()


def test_a_probe_reads_what_is_linear():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(400, 6)).astype(np.float32) + 3.0
    labels = np.stack([states[:, :3].argmax(-1), rng.integers(0, 3, 400)], axis=-1)
    probe = fit_linear_probe(states[:300], labels[:300], 3)
    right = (probe.classes(states[300:]) == labels[300:]).mean(0)
    assert right[0] > 0.85
    assert right[1] < 0.6


@pytest.fixture
def written(tmp_path, games):
    """The games in a file: with spaces, without, in capitals, and one that stops early."""
    names = square_names(Othello())
    lines = [[names[move] for move in row[row >= 0]] for row in games[0][:3]]
    path = tmp_path / "games.txt"
    path.write_text(f"{' '.join(lines[0])}\n\n{''.join(lines[1]).upper()}\n{''.join(lines[2][:9])}")
    return path


def test_written_games_are_the_same(written, games):
    found = read_transcripts([written])
    for part, whole in zip(found, games, strict=True):
        np.testing.assert_array_equal(part[:2], whole[:2])
        np.testing.assert_array_equal(part[2, :9], whole[2, :9])
    assert (found.moves[2, 9:] == -1).all()
    batch = KnownGames(found).batch([Visit(2), Visit(0)])
    assert (batch["labels"] != IGNORED).sum(-1).tolist() == [9, (games[0][0] >= 0).sum()]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("d3c3a1", r"game 2 \(line 2\): move 3, a1, is illegal; legal is .*c4"),
        ("d3 i9", "game 2 .*move 2, 'i9', is no square of a board of 8 x 8"),
        ("d3 c3 pass", "move 3, 'pass', is no square"),
        ("d3d3", "move 2, d3, is illegal"),
        ("d3c3c4" * 21, "has 63 moves: after 60 all 64 squares are taken"),
    ],
)
def test_games_that_break_the_rules_are_named(tmp_path, line, said):
    path = tmp_path / "games.txt"
    path.write_text(f"d3c3c4\n{line}\n")
    with pytest.raises(DataError, match=said):
        read_transcripts([path])
    path.write_text("\n\n")
    with pytest.raises(DataError, match="is empty"):
        read_transcripts([path])


def test_random_walks_obey_the_rooms():
    rooms = Rooms(3, 4, 2)
    walks = rooms.random_episodes(3000, 1)
    room, square, thing = walks.observations.transpose(2, 0, 1)
    assert (room == np.repeat([0, 1, 2], [4, 2, 4])).all()
    # Within a room, a move changes a row or a column by one, or a wall stops it.
    same = np.flatnonzero(np.diff(room[0]) == 0)
    down, right = (np.diff(part, axis=1)[:, same] for part in (square // 3, square % 3))
    wanted = MOVES[walks.actions[:, same]]
    moved = (down != 0) | (right != 0)
    assert (np.stack([down, right], -1)[moved] == wanted[moved]).all()
    assert 0.5 < moved.mean() < 0.8
    # A key that is taken is not seen again; the door pays once, and only with the key.
    gone = thing[:, :4] == 9
    assert (np.diff(gone.astype(int), axis=1) >= 0).all()
    assert (thing[:, 4:6] == 9).all()
    took, paid = gone[:, 3], walks.rewards.sum(-1)
    assert set(paid) == {0.0, 1.0}
    # Who walked over the key before its last move in the room has taken it.
    assert not (square[:, 1:4] == thing[:, :1])[~took].any()
    np.testing.assert_array_equal(walks.returns()[:, 0], paid)
    late = walks.in_play[:, 1:] == (walks.returns()[:, 1:] > 0)
    assert late[paid > 0].all()
    assert walks.in_play[paid == 0].all()
    again = rooms.random_episodes(3000, 1)
    np.testing.assert_array_equal(again.actions, walks.actions)
    assert (rooms.random_episodes(3000, 2).actions != walks.actions).any()


def test_rooms_on_jax():
    rooms = Rooms(3, 2, 1)
    numbers = np.random.default_rng(0).random((50, 5))
    ours, theirs = (rooms.places(xp.asarray(numbers)) for xp in (jnp, np))
    walks = [rooms.enter(ours), rooms.enter(theirs)]
    for turn in range(rooms.length):
        actions = np.random.default_rng(turn).integers(0, 4, 50)
        seen = [rooms.observe(p, w, turn) for p, w in zip((ours, theirs), walks, strict=True)]
        np.testing.assert_array_equal(*seen)
        (one, paid), (other, also) = (
            rooms.walk(p, w, turn, actions) for p, w in zip((ours, theirs), walks, strict=True)
        )
        np.testing.assert_array_equal(paid, also)
        walks = [one, other]
    assert (ours.key != ours.entrances[:, 0]).all()
    assert (ours.door != ours.entrances[:, 2]).all()
