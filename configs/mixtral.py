"""A mixture of experts on a text file of your own, or on Shakespeare.

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/mixtral.py --workdir=runs/mixtral
    python scripts/train.py --config=configs/mixtral.py:mixtral-8x7b --dry_run

Default: llama.py with 8 experts of half the width in each layer, two of which process a character:
3.2 times llama.py's parameters, with as many active ones. 1.706 nats per character on held-out
plays (seed 0; llama.py 1.714) after 17:26 on 2 cores of an AMD EPYC (Zen 5), beside heavy work.
With `--config.model.capacity_factor=1.25` experts have a quarter more capacity than an even
distribution needs, and tokens over capacity skip the experts; a step then takes about half the time
on CPUs.

Variants, after a colon, are published shapes, counted and not trained: `mixtral-8x7b`.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model",
        "mixtral",
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        width=128,
        feed_forward_width=192,
        context=64,
    )
    config.task = section(
        "task",
        "language_modeling",
        context=config.model.get_oneway_ref("context"),
        batch_size=12,
        validation_batch_size=128,
    )
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="100 steps")
    config.train = section(
        "train", duration="2000 steps", evaluate_every="250 steps", save_every="500 steps"
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {
    # 46.7 billion parameters, 12.9 of them active.
    "mixtral-8x7b": {
        "model": {
            "vocab_size": 32_000,
            "num_layers": 32,
            "num_heads": 32,
            "num_kv_heads": 8,
            "width": 4096,
            "feed_forward_width": 14_336,
            "rope_base": 1e6,
            "context": 32_768,
            "compute": {"scan_layers": True},
        }
    },
}
