"""Othello-GPT: a language model reads the moves of random games, never a board.

    pip install -e '.[tensorboard]'
    python scripts/train.py --config=configs/game_othello.py --workdir=runs/othello
    python scripts/probe_board.py --workdir=runs/othello
    python scripts/play.py --workdir=runs/othello

3 layers of width 128, 10,000 steps of 32 games that are made on the fly: 7.25 percent of the most
probable moves are illegal on 1,000 held-out games, and the loss is 0.420 nats above that of a
player who knows the rules (seed 0); the probe reads 83.4 percent of the squares right. 24:31
minutes of CPU time on one core of an Intel Xeon.

Variants, after a colon: `published`, the size of Li et al. 2023 and as many games, for an
accelerator; it has not been trained.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model",
        "gpt",
        num_layers=3,
        num_heads=4,
        width=128,
        context=60,
        tie_embeddings=False,
        activation="relu",
    )
    config.task = section("task", "othello_moves", batch_size=32, validation_batch_size=100)
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="2%", weight_decay=0.01)
    config.train = section(
        "train",
        duration="10000 steps",
        evaluate_every="5%",
        save_every="10%",
        log_every="50 steps",
        steps_per_dispatch=10,
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {
    # The published size (Li et al. 2023, section 2.2), for an accelerator.
    "published": {
        "model": {"num_layers": 8, "num_heads": 8, "width": 512, "activation": "gelu_tanh"},
        "task": {"batch_size": 512, "epoch_games": 20_000_000},
        "optimizer": {"learning_rate": 5e-4},
        "train": {"duration": "1 epochs"},
    },
}
