"""Plays a board game against a run, lets players meet, or shows what a run thinks.

python scripts/play.py --workdir=runs/tictactoe
python scripts/play.py --workdir=runs/tictactoe --opponents=runs/other,random,minimax:4
python scripts/play.py --workdir=runs/tictactoe --board="x.. .o. ..x" --picture=thoughts.png
python scripts/play.py --workdir=runs/connect_four --opponents=minimax:4 --simulations=64
python scripts/play.py --workdir=runs/othello --moves=f5,d6,c3 --picture=thoughts.png

In the terminal you write the square of your move, such as b2 (the letter of its column, the number
of its row from the top), or quit. With --opponents all players meet each other, and a table shows
their Elo ratings; with --simulations runs look ahead before they move. Players are run folders,
random, perfect (which knows the solution of a small game) and minimax:DEPTH.
"""

import sys
from pathlib import Path

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError, DataError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")
flags.DEFINE_bool("second", False, "The run begins, and you have the second move.")
flags.DEFINE_float("temperature", 0.0, "0 plays the most probable move.", lower_bound=0.0)
flags.DEFINE_integer(
    "simulations", 0, "Positions a run looks at before a move.", lower_bound=0, upper_bound=4096
)
flags.DEFINE_integer("seed", 0, "The seed of what is random.", lower_bound=0, upper_bound=2**32 - 1)
flags.DEFINE_list("opponents", None, "Other players, separated by commas.")
flags.DEFINE_integer("games", 200, "Games of each pair.", lower_bound=2, upper_bound=100_000)
flags.DEFINE_integer(
    "random_moves", 2, "Random moves at the start of these games.", lower_bound=0, upper_bound=1000
)
flags.DEFINE_string("board", None, "A position: x (who began), o or . for each square.")
flags.DEFINE_list("moves", None, "The moves so far, separated by commas.")
flags.DEFINE_string("picture", None, "Where to draw the position and what the run thinks of it.")

# The most moves whose probability is printed.
_LISTED = 5


def main() -> int:
    """Opens the run and plays."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    from transformer.runs.players import open_player

    player = open_player(workdir, values.checkpoint, values.temperature, values.simulations)
    if values.opponents:
        return meet(player)
    positions, moves = beginning(player.game)
    if values.picture or values.json:
        return think(player, positions, moves)
    return play(player, positions, moves)


def beginning(game):
    """The position that the flags describe, and the moves that led there."""
    import numpy as np

    from transformer.data.games.positions import played, position_of, square_of
    from transformer.data.games.rows import RowGame

    values = command_line.FLAGS
    if values.board is None:
        names = values.moves or []
        moves = [square_of(game, name) for name in names]
        positions = played(
            game, moves, lambda at: f"{game.title}: move {at + 1}, {names[at]}, is illegal."
        )
        return positions, np.array([moves], np.int64)
    if values.moves or not isinstance(game, RowGame):
        raise ConfigError("--board is for games with stones in a row, and without --moves.")
    return position_of(game, values.board), np.zeros((1, 0), int)


def meet(player) -> int:
    """All players against each other; prints a table of ratings."""
    import numpy as np

    from transformer.runs.players import player_named, table
    from transformer.scoring.games import elo_ratings

    values, game = command_line.FLAGS, player.game
    others = [
        player_named(name, game, values.checkpoint, values.temperature, values.simulations)
        for name in values.opponents
    ]
    players = [player, *others]
    games = values.games + values.games % 2
    points, scores = table(
        game, players, games=games, random_moves=values.random_moves, seed=values.seed
    )
    met = games * (1.0 - np.eye(len(players)))
    rows = []
    ratings = elo_ratings(points, met)
    for place in np.argsort(-ratings, kind="stable"):
        won = [
            score.wins if place == one else score.losses
            for (one, other), score in scores.items()
            if place in (one, other)
        ]
        drawn = [score.draws for pair, score in scores.items() if place in pair]
        total = int(met[place].sum())
        rows.append(
            {
                "player": players[place].name,
                "elo": round(float(ratings[place]), 1),
                "games": total,
                "wins": sum(won),
                "draws": sum(drawn),
                "losses": total - sum(won) - sum(drawn),
            }
        )
    matches = [
        {"first": players[one].name, "second": players[other].name, **score._asdict()}
        for (one, other), score in scores.items()
    ]
    if values.json:
        command_line.print_json({"game": game.title, "players": rows, "matches": matches})
        return 0
    width = max(len(row["player"]) for row in rows)
    print(f"{game.title}; each pair plays {games} games with {values.random_moves} random moves")
    print(f"{'':{width}}  {'Elo':>7} {'games':>6} {'wins':>6} {'draws':>6} {'losses':>6}")
    for row in rows:
        counts = " ".join(f"{row[name]:6,}" for name in ("games", "wins", "draws", "losses"))
        print(f"{row['player']:{width}}  {row['elo']:+7.0f} {counts}")
    return 0


def think(player, positions, moves) -> int:
    """Prints and draws what the run thinks of a position."""
    import numpy as np

    from transformer.tasks.parts.boards import draw_judgement

    values, game = command_line.FLAGS, player.game
    if not np.asarray(game.legal(positions)).any():
        raise DataError("the game is over in this position: no move is left to think of.")
    judgement = player.judge(positions, moves)
    if values.picture:
        draw_judgement(game, positions, judgement, Path(values.picture))
    if values.json:
        command_line.print_json(thoughts(game, judgement))
    else:
        print(shown_board(game, positions))
        print(shown_thoughts(game, judgement))
    return 0


def play(player, positions, moves) -> int:
    """A game in the terminal."""
    import numpy as np

    values, game = command_line.FLAGS, player.game
    mine = 1 if values.second else 0
    random = np.random.default_rng(values.seed)
    lines = command_line.standard_input_lines()
    print(f"{game.title}: you have {'xo'[mine]}. Write the square of your move, or quit.")
    while np.asarray(game.legal(positions)).any():
        print(shown_board(game, positions))
        if positions.players[0] == mine:
            move = asked(game, positions, lines)
            if move is None:
                return 0
        else:
            print(shown_thoughts(game, player.judge(positions, moves)))
            move = int(player.choose(positions, moves, random)[0])
        positions = game.after(positions, np.array([move]))
        moves = np.concatenate([moves, [[move]]], axis=1)
    print(shown_board(game, positions))
    worth = int(game.outcomes(positions)[0]) * (1 if positions.players[0] == mine else -1)
    print({1: "You win.", 0: "A draw.", -1: "You lose."}[worth])
    return 0


def asked(game, positions, lines):
    """The move that the user writes; None to stop."""
    import numpy as np

    from transformer.data.games.positions import square_of

    while True:
        print("your move: ", end="", flush=True)
        line = next(iter(lines), None)
        if line is None or line.strip().lower() in ("quit", "q"):
            print()
            return None
        if not sys.stdin.isatty():
            print(line.strip())
        try:
            move = square_of(game, line)
        except DataError as error:
            print(error)
            continue
        if np.asarray(game.legal(positions))[0, move]:
            return move
        print(f"{line.strip()} is not a legal move here.")


def shown_board(game, positions) -> str:
    """The board as text."""
    from transformer.data.games.positions import square_names

    rows, columns = game.shape
    board = positions.absolute()[0].reshape(rows, columns)
    names = square_names(game)
    lines = ["    " + " ".join(name.rstrip("0123456789") for name in names[:columns])]
    for row in range(rows):
        lines.append(f"{row + 1:3d} " + " ".join(".xo"[piece] for piece in board[row]))
    return "\n".join(lines)


def thoughts(game, judgement) -> dict:
    """What the run thinks, by square."""
    from transformer.data.games.positions import square_names

    chances = dict(zip(square_names(game), judgement.probabilities[0].tolist(), strict=True))
    value = None if judgement.values is None else float(judgement.values[0])
    return {"moves": chances, "value": value}


def shown_thoughts(game, judgement) -> str:
    """The most probable moves in a line."""
    found = thoughts(game, judgement)
    best = sorted(found["moves"].items(), key=lambda pair: -pair[1])[:_LISTED]
    text = ", ".join(f"{name} {chance:.0%}" for name, chance in best if chance >= 0.005)
    if found["value"] is None:
        return f"the run thinks of {text}"
    return f"the run thinks of {text}; it expects {round(found['value'], 2) + 0.0:+.2f}"


if __name__ == "__main__":
    command_line.run(main)
