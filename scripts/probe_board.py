"""Reads the board out of a run of Othello that has only seen moves.

python scripts/probe_board.py --workdir=runs/othello

A linear probe for each layer learns from random games what is on each square; others judge it. The
same is done with the untrained network, whose figures say what a probe finds by itself. The picture
board_probe.png in the run folder shows both, and the share of illegal moves over training.
"""

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")
flags.DEFINE_integer("games", 800, "Games to learn from.", lower_bound=8, upper_bound=100_000)
flags.DEFINE_integer("seed", 0, "The seed of the games.", lower_bound=0, upper_bound=2**32 - 1)


def main() -> int:
    """Opens the run, fits the probes and draws."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    from transformer.pictures.probes import draw_probes
    from transformer.runs.board_probe import probe_board
    from transformer.runs.opening import open_run
    from transformer.tasks.othello_moves import OthelloMoves
    from transformer.training.metrics import read_metrics

    run = open_run(workdir, values.checkpoint)
    if not isinstance(run.task, OthelloMoves):
        raise ConfigError(
            f"{workdir} was trained for {run.config.task.name}: probes are for othello_moves, "
            f"whose models see no board."
        )
    found = probe_board(run, values.games, values.seed)
    draw_probes(
        (found.trained, found.untrained),
        (found.by_move, found.untrained_by_move),
        found.constant,
        found.constant_by_move,
        list(read_metrics(workdir)),
        workdir / "board_probe.png",
    )
    if values.json:
        by_layer = {"trained": found.trained.tolist(), "untrained": found.untrained.tolist()}
        command_line.print_json({**by_layer, "most_frequent": found.constant})
        return 0
    print("squares read right  trained  untrained")
    for layer, (ours, theirs) in enumerate(zip(found.trained, found.untrained, strict=True)):
        print(f"after {layer} layers       {ours:8.2%}  {theirs:9.2%}")
    print(f"most frequent       {found.constant:8.2%}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
