"""TODO.

python scripts/train.py --config=configs/bert_tag.py --workdir=runs/tag
"""

from ml_collections import ConfigDict

from transformer.config import section, variant_of


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model",
        "bert",
        num_layers=4,
        num_heads=4,
        width=128,
        context=128,
        position_init="sinusoidal",
        dropout_rate=0.1,
    )
    config.task = section("task", "tagging", max_length=48, batch_size=32, vocab_size=4096)
    config.optimizer = section(
        "optimizer", learning_rate=5e-4, schedule="linear", warmup="10%", weight_decay=0.01
    )
    config.train = section(
        "train", duration="500 steps", evaluate_every="100 steps", save_every="250 steps"
    )
    config.mesh = section("mesh")
    config.init, config.lora = section("init"), section("lora")
    config.update(variant_of(variant, VARIANTS))
    return config


VARIANTS = {}
