"""A language model of chess: it reads the moves of games, never a board.

    pip install -e '.[chess,tensorboard]'
    python scripts/train.py --config=configs/game_chess.py --workdir=runs/chess \
        --config.task.train=games.pgn.gz
    python scripts/generate.py --workdir=runs/chess --prompt="e2e4 e7e5" --max_new_tokens=20

Each of the 1,968 moves is a token. It ends with the share of positions of held-out games in which
the most probable move is illegal, and with a game of its own. There is no file of games here; what
300 steps on random games give is in docs/games.md.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default; there are no variants."""
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=4, num_heads=4, width=128, context=200)
    config.task = section("task", "chess_moves", batch_size=32)
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="2%", weight_decay=0.01)
    config.train = section(
        "train", duration="3000 steps", evaluate_every="5%", save_every="10%", log_every="50 steps"
    )
    return complete(config, variant)
