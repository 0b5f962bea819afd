"""An ESM on proteins."""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section("model", "esm", num_layers=4, num_heads=4, width=128, context=1026)
    config.task = section(
        "task",
        "masked_lm",
        embedded="peptides",
        next_sentence=False,
        tokenizer={"kind": "residues"},
        max_length=64,
        batch_size=64,
    )
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="100 steps", beta2=0.98)
    config.train = section(
        "train",
        duration="2000 steps",
        evaluate_every="500 steps",
        save_every="500 steps",
        steps_per_dispatch=10,
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {}
