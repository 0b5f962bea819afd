"""Four in a row with falling stones on 4 x 4 squares, solved exactly.

    pip install -e '.[tensorboard]'
    python scripts/train.py --config=configs/game_connect_four.py --workdir=runs/connect_four
    python scripts/play.py --workdir=runs/connect_four --opponents=random,minimax:4,perfect

Of 134,289 positions in play 2 percent are held out, with all that mirror into them, but none of the
first. 3 layers of width 64, 3,000 steps of 128 positions, 3:21 of processor time on a busy Intel
Xeon. On held-out positions: 97.4 percent best moves (a random legal move: 76.8 on all positions),
92.4 percent right values (always a draw: 63.1), every move legal. 200 games each: Elo +140 for the
perfect player, +70 for the run, -27 for minimax of depth 4, -183 for random moves. Played against
the perfect player from the empty board it still loses 55 percent of the games when it begins, and
16 when it does not.

Any board with up to 5,000,000 positions works, such as --config.task.game.rows=5 (1.7 million,
solved in 5 seconds).

Variants, after a colon: `self_play` learns 4 x 5 squares from nothing but the rules
(`pip install -e '.[games]'`). 800 steps of 16 boards, seed 0, 6:34 of processor time on a core of
an AMD EPYC (Zen 5) that much other work shared: 72.6 percent best moves. Against minimax of depth 4
the best checkpoint (step 480) wins 135 of 200 games, draws 47 and loses 18 if it looks at 256
positions before a move (`play.py --simulations=256`); 88, 67 and 45 without looking ahead.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section

TASKS = {
    "solved_game": {
        "game": {"rows": 4, "columns": 4, "in_row": 4, "falls": True},
        "batch_size": 128,
        "held_out": 0.02,
    },
    # On 4 x 4 squares even a perfect player wins less than half of its games against minimax:4.
    "self_play": {
        "game": {"rows": 4, "columns": 5, "in_row": 4, "falls": True},
        "batch_size": 16,
        "simulations": 24,
        "random_moves": 12,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    task = "self_play" if variant == "self_play" else "solved_game"
    config = ConfigDict()
    config.model = section(
        "model",
        "board_transformer",
        num_layers=3,
        num_heads=4,
        width=64,
        init_scale=0.1,
        activation="relu",
    )
    config.task = section("task", task, validation_batch_size=1024, **TASKS[task])
    config.optimizer = section("optimizer", learning_rate=3e-3, warmup="5%", weight_decay=0.01)
    config.train = section(
        "train",
        duration="3000 steps",
        ema_decay=0.99,
        evaluate_every="10%",
        save_every="25%",
        steps_per_dispatch=10,
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {
    "self_play": {
        "model": {"num_layers": 2, "width": 48},
        "train": {"duration": "800 steps"},
    },
}
