"""The Transformer of "Attention Is All You Need"."""

from ml_collections import ConfigDict

from transformer.config import section, variant_of


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model",
        "vaswani",
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        width=128,
        feed_forward_width=256,
        norm_order="pre",
    )
    config.task = section("task", "translation", bpe_vocab_size=1000)
    config.optimizer = section(
        "optimizer",
        learning_rate=3e-3,
        schedule="inverse_square_root",
        warmup="200 steps",
        beta2=0.98,
        epsilon=1e-9,
        weight_decay=0.0,
        clip_norm=1.0,
    )
    config.train = section(
        "train", duration="1000 steps", evaluate_every="250 steps", save_every="250 steps"
    )
    config.mesh = section("mesh")
    config.update(variant_of(variant, VARIANTS))
    return config


VARIANTS = {
    "multi30k": {
        "model": {
            "num_encoder_layers": 4,
            "num_decoder_layers": 4,
            "dropout_rate": 0.3,
        },
        "task": {"bpe_vocab_size": 10_000, "beam_size": 5, "length_penalty": 1.0},
        "optimizer": {"learning_rate": 5e-3, "warmup": "2000 steps"},
        "train": {
            "duration": "8000 steps",
            "evaluate_every": "250 steps",
            "save_every": "250 steps",
        },
    },
}
