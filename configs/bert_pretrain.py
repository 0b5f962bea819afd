"""BERT pretrained on raw text: masked words, and whether a sentence follows another.

python scripts/train.py --config=configs/bert_pretrain.py --workdir=runs/bert
"""

from ml_collections import ConfigDict

from transformer.config import section, variant_of


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model", "bert", num_layers=4, num_heads=4, width=128, context=128, dropout_rate=0.0
    )
    config.task = section("task", "masked_lm", max_length=128, batch_size=32, vocab_size=4096)
    config.optimizer = section("optimizer", learning_rate=1e-3, warmup="200 steps", beta2=0.98)
    config.train = section(
        "train",
        duration="3000 steps",
        evaluate_every="500 steps",
        save_every="500 steps",
        steps_per_dispatch=10,
    )
    config.mesh = section("mesh")
    config.init, config.lora = section("init"), section("lora")
    config.update(variant_of(variant, VARIANTS))
    return config


VARIANTS = {
    # Strings of programs stand in no order that would say what follows.
    "catalogues": {
        "model": {"context": 64},
        "task": {
            "embedded": "catalogues",
            "next_sentence": False,
            "vocab_size": 8192,
            "max_length": 64,
            "batch_size": 64,
        },
    },
}
