"""A character-level GPT on Shakespeare, or on a text file of your own.

    python scripts/train.py --config=configs/gpt_char.py --workdir=runs/gpt_char
"""

from ml_collections import ConfigDict

from transformer.config import section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants `tiny` and `small`."""
    config = ConfigDict()
    config.model = section(
        "model",
        "gpt",
        num_layers=4,
        num_heads=4,
        width=128,
        context=64,
    )
    config.task = section("task", "language_modeling", batch_size=12, validation_batch_size=128)
    config.optimizer = section("optimizer", learning_rate=2e-3)
    config.train = section(
        "train",
        duration="2000 steps",
        evaluate_every="250 steps",
        save_every="250 steps",
        validation_batches=10,
        steps_per_dispatch=10,
    )
    config.mesh = section("mesh")
    if variant:
        config.update(VARIANTS[variant])
    # Windows are as long as the model can read; overriding one overrides both.
    config.task.context = config.model.get_ref("context")
    return config


VARIANTS: dict = {}
