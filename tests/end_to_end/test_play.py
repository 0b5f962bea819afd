"""Games in the terminal, matches and thoughts, as a user asks for them."""

import json

import pytest

from tests.end_to_end.conftest import ROOT, call

# Two in a row on 2 x 2: who begins wins with the second stone.
SMALL = [
    f"--config={ROOT / 'configs' / 'game_tictactoe.py'}",
    "--config.task.game.rows=2",
    "--config.task.game.columns=2",
    "--config.task.game.in_row=2",
    "--config.model.num_layers=1",
    "--config.model.width=16",
    "--config.train.duration=60 steps",
    "--config.train.tensorboard=False",
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("play") / "run"
    done = call("train.py", *SMALL, f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_game_in_the_terminal(workdir):
    done = call("play.py", f"--workdir={workdir}", input="z1\na1\na1\nb1\na2\nb2\n")
    assert done.returncode == 0, done.stderr
    assert "2 in a row on 2 x 2: you have x" in done.stdout
    assert "there is no square 'z1'" in done.stdout
    assert "a1 is not a legal move here." in done.stdout
    assert "the run thinks of" in done.stdout
    assert done.stdout.endswith("You win.\n")
    assert call("play.py", f"--workdir={workdir}", input="quit\n").returncode == 0


def test_players_meet(workdir):
    flags = ["--games=20", "--random_moves=0", "--json"]
    done = call("play.py", f"--workdir={workdir}", "--opponents=random,perfect", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {row["player"] for row in found["players"]} == {str(workdir), "random", "perfect"}
    assert all(row["wins"] + row["draws"] + row["losses"] == 40 for row in found["players"])
    assert abs(sum(row["elo"] for row in found["players"])) < 0.2
    # After two of the four moves somebody may have won.
    done = call("play.py", f"--workdir={workdir}", "--opponents=random", "--random_moves=3")
    assert done.returncode == 2
    assert "some games of 2 in a row on 2 x 2 with 4 squares are over" in done.stderr


def test_a_run_looks_ahead(workdir):
    """Who begins wins, so that each of two who see it wins as often as it begins."""
    pytest.importorskip("mctx", reason="pip install -e '.[games]'")
    flags = [f"--workdir={workdir}", "--games=20", "--random_moves=0", "--json"]
    done = call("play.py", *flags, "--opponents=perfect", "--simulations=16")
    assert done.returncode == 0, done.stderr
    (match,) = json.loads(done.stdout)["matches"]
    assert (match["wins"], match["draws"], match["losses"]) == (10, 0, 10)
    done = call("play.py", *flags, "--opponents=random", "--simulations=16", "--temperature=1")
    assert done.returncode == 2
    assert "--simulations takes the best move found: leave --temperature out." in done.stderr


def test_thoughts_of_a_position(workdir, tmp_path):
    picture = tmp_path / "thoughts.png"
    flags = [f"--workdir={workdir}", "--board=x. .o", f"--picture={picture}", "--json"]
    done = call("play.py", *flags)
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["moves"].values()) == pytest.approx(1.0)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--board=x.. .o. ..."], "this board has 9 squares"),
        (["--board=xx xo"], "3 x and 1 o"),
        (["--moves=a1,a1"], "move 2, a1, is illegal"),
        (["--opponents=minimax:9"], "1 to 6 moves ahead"),
        (["--board=xx o.", "--json"], "the game is over"),
    ],
)
def test_bad_input(workdir, flags, said):
    done = call("play.py", f"--workdir={workdir}", *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
