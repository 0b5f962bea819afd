"""Tasks on games: their losses by hand, what they learn, and resuming to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.common import AnyMethod, noisy_parameters
from tests.runs import assert_same_run
from transformer.data.games.positions import Positions
from transformer.data.games.rooms import Rooms
from transformer.data.games.rows import RowGame
from transformer.errors import ConfigError, DataError
from transformer.explaining.tracing import trace
from transformer.models.board_transformer import BoardTransformer
from transformer.models.decision_transformer import DecisionTransformer
from transformer.runs.board_probe import probe_board
from transformer.runs.opening import open_run
from transformer.runs.players import match, open_player, player_named
from transformer.scoring.games import all_games
from transformer.tasks.parts import searching
from transformer.tasks.parts.boards import best_moves, divergences, surprises
from transformer.tasks.parts.playing import judged
from transformer.tasks.solved_game import SolvedGame
from transformer.training.loop import train
from transformer.training.sections import section
from transformer.training.shared import Shared

# Four squares, of which two in a row win: 2 x 2, where who begins wins with the second stone.
SMALL = {"rows": 2, "columns": 2, "in_row": 2}
BOARD = {"num_layers": 1, "num_heads": 2, "width": 8, "init_scale": 0.2}
DECODER = {"num_layers": 1, "num_heads": 2, "width": 16, "context": 60}
JOBS = {
    "solved_game": ("board_transformer", BOARD, {"game": SMALL, "batch_size": 4}),
    "self_play": (
        "board_transformer",
        BOARD,
        {"game": SMALL, "batch_size": 2, "simulations": 3, "random_moves": 1},
    ),
    "othello_moves": ("gpt", DECODER, {"batch_size": 2, "validation_games": 2}),
    "key_to_door": (
        "decision_transformer",
        {**BOARD, "dropout_rate": 0.1},
        {
            "rooms": {"side": 2, "moves": 2, "distraction": 1},
            "batch_size": 4,
            "episodes": 8,
            "validation_episodes": 4,
            "tries": 4,
        },
    ),
}


def config_of(task, steps=4):
    model, fields, settings = JOBS[task]
    config = ConfigDict({name: section(name) for name in ("optimizer", "train", "mesh")})
    config.model = section("model", model, **fields)
    config.task = section("task", task, **settings)
    config.optimizer.update({"warmup": "1 steps", "learning_rate": 1e-2})
    every = {"evaluate_every": "2 steps", "save_every": "2 steps"}
    config.train.update({"duration": f"{steps} steps", "tensorboard": False, **every})
    return config


@pytest.fixture(scope="module")
def shared():
    return Shared()


def without_pictures(patch):
    """Draws nothing: one picture of each kind is enough, and drawing takes most of the time."""
    for place in ("tasks.parts.boards.draw_boards", "tasks.key_to_door.draw_walks"):
        patch.setattr(f"transformer.{place}", lambda *arguments: None)


@pytest.fixture(scope="module")
def runs(shared, tmp_path_factory):
    """Runs by task, made when they are first needed."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(task):
        if task == "self_play":
            pytest.importorskip("mctx", reason="pip install -e '.[games]'")
        if task not in made:
            made[task] = folder / task
            with pytest.MonkeyPatch.context() as patch:
                if task in ("self_play", "othello_moves"):
                    without_pictures(patch)
                code, _ = train(config_of(task), made[task], shared=shared, curves=False)
            assert code == 0
        return made[task]

    return run


@pytest.mark.sampled(2)
@pytest.mark.parametrize("task", JOBS)
def test_resumed_is_uninterrupted(task, runs, shared, tmp_path, monkeypatch):
    whole = runs(task)
    pictures = {"solved_game": "moves.png", "key_to_door": "walks.png"}
    assert task not in pictures or (whole / pictures[task]).exists()
    without_pictures(monkeypatch)
    workdir = tmp_path / "run"
    stop = {"should_stop": lambda step, loss: step == 2}
    train(config_of(task), workdir, shared=shared, curves=False, **stop)
    assert not (workdir / "finished.json").exists()
    train(config_of(task), workdir, shared=shared, curves=False)
    assert_same_run(workdir, whole)


def test_squares_that_are_alike_are_told_apart_by_place():
    model = BoardTransformer(num_squares=4, **BOARD)
    boards = jnp.array([[0, 1, 2, 0], [1, 0, 2, 0]])
    params = noisy_parameters(AnyMethod(model, "evaluate"), boards)
    moves, results = model.apply({"params": params}, boards, method="evaluate")
    assert (moves.shape, results.shape) == ((2, 4), (2, 3))
    assert len(np.unique(np.asarray(moves).round(6))) == 8


def test_losses_by_hand():
    scores = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    even = jnp.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    expected = [0.5 * np.log(1.0) + 0.5 * np.log(2.0), -np.log(0.8)]
    np.testing.assert_allclose(divergences(scores, even), expected, atol=1e-6)
    np.testing.assert_allclose(surprises(scores, even > 0), -np.log([0.75, 0.8]), atol=1e-6)


def test_held_out_positions_are_not_in_training_when_mirrored():
    task = SolvedGame(held_out=0.2)
    data = task.load(None)
    boards = data.solved.positions.boards
    train = boards[data.train]
    seen = {board.tobytes() for at in task.board.game.symmetries for board in train[:, at]}
    assert len(data.validation) > 500
    assert (boards[data.validation] > 0).sum(-1).min() == 4
    assert not [board for board in boards[data.validation] if board.tobytes() in seen]
    with pytest.raises(ConfigError, match=r"none of the \d+ positions"):
        SolvedGame(held_out=1e-5).load(None)


def test_it_learns_the_smallest_game_by_heart(shared, tmp_path):
    config = config_of("solved_game", steps=150)
    config.optimizer.learning_rate = 3e-2
    config.train.update({"evaluate_every": "150 steps", "save_every": "150 steps"})
    _, report = train(config, tmp_path / "run", shared=shared, curves=False)
    assert report["final"]["legal"] == report["final"]["best_move"] == 1.0
    assert report["final"]["win_against_perfect_first"] == 1.0
    player = open_player(tmp_path / "run", "best", 0.0)
    assert player.judge(player.game.start(1), np.zeros((1, 0), int)).values[0] > 0.5
    rival = player_named("random", player.game, "best", 0.0)
    score = match(player.game, player, rival, games=20, random_moves=0, seed=0)
    assert score.wins >= 10
    assert sum(score) == 20
    again = match(player.game, player, rival, games=20, random_moves=0, seed=0)
    assert again == score


def test_perfect_play_against_minimax():
    game = RowGame()
    perfect, deep = (player_named(name, game, "best", 0.0) for name in ("perfect", "minimax:6"))
    score = match(game, perfect, deep, games=20, random_moves=0, seed=1)
    assert score.losses == 0
    with pytest.raises(ConfigError, match="1 to 6 moves ahead"):
        player_named("minimax:7", game, "best", 0.0)
    with pytest.raises(ConfigError, match="no player minimax:deep of tic-tac-toe"):
        player_named("minimax:deep", game, "best", 0.0)


def test_a_run_of_another_game_is_refused(runs):
    with pytest.raises(ConfigError, match=r"plays 2 in a row on 2 x 2, and the others play tic-"):
        player_named(str(runs("solved_game")), RowGame(), "best", 0.0)


def test_a_board_of_another_size_is_refused_without_a_field_that_is_none(tmp_path):
    config = config_of("solved_game")
    config.model.num_squares = 9
    with pytest.raises(ConfigError, match=r"is 9, and the data have 4: leave it out\.$"):
        train(config, tmp_path / "run", curves=False)


def test_a_position_can_be_explained(runs):
    run = open_run(runs("solved_game"))
    found = trace(run, "x. .o")
    assert [token.text for token in found.stacks[0].tokens][:2] == ["[game]", "a1 own"]
    expected = judged(run.model, run.params, np.array([[1, 0, 0, 2]])).probabilities[0]
    shares = np.exp(found.outputs - found.outputs.max())
    np.testing.assert_allclose(shares / shares.sum(), expected, atol=1e-5)
    with pytest.raises(DataError, match="the game is over"):
        trace(run, "xx o.")


def test_chunks_of_boards_change_nothing():
    model = BoardTransformer(num_squares=9, **BOARD)
    data = SolvedGame().load(None)
    params = noisy_parameters(AnyMethod(model, "evaluate"), jnp.zeros((1, 9), int))
    boards = data.solved.positions.boards
    many, few = judged(model, params, boards[:1100]), judged(model, params, boards[1090:1100])
    np.testing.assert_allclose(many.probabilities[1090:], few.probabilities, atol=1e-6)
    np.testing.assert_allclose(many.values[1090:], few.values, atol=1e-6)


def test_search_finds_a_win_and_a_threat():
    pytest.importorskip("mctx", reason="pip install -e '.[games]'")
    game, model = RowGame(), BoardTransformer(num_squares=9, **BOARD)
    params = noisy_parameters(AnyMethod(model, "evaluate"), jnp.zeros((1, 9), int), scale=0.0)
    # Own stones at a1 and b1 win at c1; in the second board, the other threatens c2.
    boards = np.array([[1, 1, 0, 2, 2, 0, 0, 0, 0], [1, 0, 0, 2, 2, 0, 0, 1, 0]], np.int8)
    positions = Positions(jnp.asarray(boards), jnp.zeros(2, jnp.int8))
    # Compiled as a whole; eagerly each of some hundred operations would be compiled.
    compiled = jax.jit(searching.search, static_argnums=(0, 2, 5))
    moves, policy = compiled(model, params, game, positions, jax.random.key(0), 200)
    assert moves.tolist() == [2, 5]
    assert (policy.argmax(-1) == moves).all()


def first_free(model, params, game, positions, key, simulations):
    """In place of a search: the first legal move."""
    legal = game.legal(positions)
    return legal.argmax(-1), legal / legal.sum(-1, keepdims=True)


def test_games_follow_each_other_and_are_judged_by_their_end(monkeypatch):
    monkeypatch.setattr(searching, "search", first_free)
    game, model = RowGame(), BoardTransformer(num_squares=9, **BOARD)
    play = jax.jit(
        lambda key: searching.play_games(
            model, {}, game, key, 40, moves=12, simulations=1, random_moves=6
        )
    )
    boards, policies, labels, judged = (
        np.asarray(x).swapaxes(0, 1) for x in play(jax.random.key(1))
    )
    counts = (boards > 0).sum(-1)
    assert set(counts[:, 0]) == set(range(7))
    for row in range(len(boards)):
        for turn in range(11):
            positions = Positions(boards[row, turn][None], np.zeros(1, np.int8))
            assert game.legal(positions).any()
            after = game.after(positions, policies[row, turn].argmax()[None])
            over = not game.legal(after).any()
            if over:
                assert judged[row, turn]
                assert labels[row, turn] == 1 - game.outcomes(after)[0]
                assert counts[row, turn + 1] <= 6
            else:
                # Sides take turns, and know as much as before the next move.
                np.testing.assert_array_equal(after.boards[0], boards[row, turn + 1])
                assert judged[row, turn] == judged[row, turn + 1]
                if judged[row, turn]:
                    assert labels[row, turn] + labels[row, turn + 1] == 2
    assert 0 < judged[:, -1].sum() < 40


def test_a_turn_at_a_time_is_the_whole_episode():
    rooms = Rooms(2, 2, 1)
    model = DecisionTransformer(
        num_features=3, num_values=5, num_actions=4, num_turns=5, **{**BOARD, "num_layers": 2}
    )
    rng, shape = np.random.default_rng(0), (3, rooms.length)
    inputs = (
        rng.integers(0, 5, shape),
        rng.random(shape, np.float32),
        rng.random(shape) > 0.5,
        rng.integers(0, 5, (*shape, 3)),
    )
    params = noisy_parameters(AnyMethod(model, "decide"), *inputs)

    @jax.jit
    def decide(*inputs, **others):
        return model.apply({"params": params}, *inputs, method="decide", **others)

    whole, _ = decide(*inputs)
    cache = model.empty_cache(len(whole))
    for turn in range(rooms.length):
        part = [array[:, turn : turn + 1] for array in inputs]
        found, cache = decide(*part, turns=jnp.full((3, 1), turn), cache=cache)
        np.testing.assert_allclose(found[:, 0], whole[:, turn], atol=1e-5)
    # A hidden return makes no difference; others do, but not to earlier turns.
    before, returns, asked, seen = inputs
    changed, _ = decide(before, np.where(asked, returns, 7.0), asked, seen)
    np.testing.assert_array_equal(changed, whole)
    changed, _ = decide(before, returns + (np.arange(5) == 2), asked | True, seen)
    known, _ = decide(before, returns, asked | True, seen)
    np.testing.assert_array_equal(changed[:, :2], known[:, :2])
    assert (np.abs(changed - known)[:, 2:].max(-1) > 1e-6).all()


def test_best_moves_of_all_positions():
    data = SolvedGame().load(None)
    found = best_moves(data.solved)(data.solved.positions.take(np.array([5, 0, 77])))
    np.testing.assert_array_equal(found, data.solved.best[[5, 0, 77]])
    results = all_games(
        RowGame(), lambda p: best_moves(data.solved)(p).argmax(-1), best_moves(data.solved), 0
    )
    assert (results.win, results.draw, results.loss) == (0.0, 1.0, 0.0)


def test_moves_alone_do_not_show_a_board_to_a_network_without_training(runs):
    run = open_run(runs("othello_moves"))
    found = probe_board(run, 8, 0)
    assert found.trained.shape == found.untrained.shape == (2,)
    assert found.by_move.shape == (59,)
    assert 0.4 < found.constant < 0.8
    assert ((found.trained > 0.3) & (found.trained < 0.9)).all()
    player = open_player(run.workdir, "best", 1.0)
    score = match(player.game, player, player, games=2, random_moves=4, seed=0)
    assert sum(score) == 2
