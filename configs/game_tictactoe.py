"""Tic-tac-toe: a transformer on the squares of the board that never loses.

    python scripts/train.py --config=configs/game_tictactoe.py --workdir=runs/tictactoe
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model", "board_transformer", num_layers=3, num_heads=4, width=64, init_scale=0.1
    )
    config.task = section("task", "solved_game", batch_size=128, validation_batch_size=1024)
    config.optimizer = section("optimizer", learning_rate=3e-3, warmup="5%", weight_decay=0.01)
    config.train = section(
        "train", duration="60 epochs", evaluate_every="10%", save_every="25%", steps_per_dispatch=10
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {}
