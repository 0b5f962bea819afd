"""A character-level GPT on Shakespeare, or on a text file of your own.

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/gpt_char.py --workdir=runs/gpt_char
    python scripts/train.py --config=configs/gpt_char.py --workdir=runs/mine \
        --config.task.path=my.txt

Default: 4 layers, 4 heads, width 128, context 64, 2,000 steps of 12 windows. Measured on 2 cores of
an AMD EPYC (Zen 5): 70 seconds with a warm compilation cache, validation loss 1.832 nats per
character on three plays held out whole (mean of seeds 0, 1, 2: 1.838, 1.832, 1.825). The variants
have not been trained to a score.

Variants, after a colon (`configs/gpt_char.py:small`): `tiny` and `small` are a published pair of
models with 437,764 and 15,466,756 parameters at a vocabulary of 6,148 characters.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from transformer.config import complete, section
from transformer.sweeps.algebra import Overrides, values


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=4, num_heads=4, width=128, context=64)
    config.task = section(
        "task",
        "language_modeling",
        # Windows have the length of the model's context: overriding one overrides both.
        context=config.model.get_ref("context"),
        batch_size=12,
        validation_batch_size=128,
    )
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="100 steps")
    config.train = section(
        "train",
        duration="2000 steps",
        evaluate_every="250 steps",
        validation_batches=10,
        save_every="250 steps",
        steps_per_dispatch=10,
    )
    return complete(config, variant, VARIANTS)


def sweep_learning_rate() -> Iterator[Overrides]:
    """Learning rates around the default, for `scripts/sweep.py --sweep=learning_rate`."""
    return values("optimizer.learning_rate", [5e-4, 1e-3, 2e-3, 4e-3])


def sweep_seed() -> Iterator[Overrides]:
    """Three seeds, for `--sweep=learning_rate,seed`."""
    return values("train.seed", range(3))


# Both have an untied output layer and no biases on queries, keys and values.
PUBLISHED = {
    "activation": "relu",
    "qkv_bias": False,
    "tie_embeddings": False,
    "output_bias": True,
}

VARIANTS = {
    "tiny": {
        "model": {"num_layers": 3, "num_heads": 4, "width": 32, "context": 8, **PUBLISHED},
        "task": {"batch_size": 32},
        "optimizer": {"learning_rate": 1e-3},
    },
    "small": {
        "model": {"num_layers": 6, "num_heads": 6, "width": 384, "context": 256, **PUBLISHED},
        "task": {"batch_size": 64, "validation_batch_size": 64},
        "optimizer": {"learning_rate": 3e-4},
        "train": {"steps_per_dispatch": 1},
    },
}
