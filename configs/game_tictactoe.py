"""Tic-tac-toe: a transformer on the squares of the board that never loses.

    pip install -e '.[tensorboard]'
    python scripts/train.py --config=configs/game_tictactoe.py --workdir=runs/tictactoe
    python scripts/play.py --workdir=runs/tictactoe

3 layers of width 64 imitate the solution of all 4,520 positions in play. Measured on one busy core
of an Intel Xeon: 3:30 from start to end, 100 seconds of it on the processor; from epoch 42 of 60
on, every best move and every value was right. All games enumerated: it draws against a perfect
player, and never loses against one that tries every move.

Variants, after a colon: `self_play` learns from nothing but the rules, by games against itself
with a search (`pip install -e '.[games]'`). One run (seed 0): every move legal, 99.91 percent best
moves, every value right. All games enumerated: it draws against a perfect player, and loses 0.32
percent of those in which a random player begins, none if it looks at 8 positions before each move
(`play.py --simulations=8`, 1,000 games each). 4:18 of processor time on one core of an AMD EPYC
(Zen 5) that other work shared.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section

TASKS = {
    "solved_game": {"batch_size": 128},
    "self_play": {"batch_size": 32, "simulations": 16, "random_moves": 7},
}


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    task = "self_play" if variant == "self_play" else "solved_game"
    config = ConfigDict()
    config.model = section(
        "model", "board_transformer", num_layers=3, num_heads=4, width=64, init_scale=0.1
    )
    config.task = section("task", task, validation_batch_size=1024, **TASKS[task])
    config.optimizer = section("optimizer", learning_rate=3e-3, warmup="5%", weight_decay=0.01)
    config.train = section(
        "train", duration="60 epochs", evaluate_every="10%", save_every="25%", steps_per_dispatch=10
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {
    # The average of the parameters plays better than the last ones: games differ from step to step.
    "self_play": {
        "model": {"num_layers": 2, "width": 48, "activation": "relu"},
        "train": {"duration": "1800 steps", "steps_per_dispatch": 10, "ema_decay": 0.99},
    },
}
