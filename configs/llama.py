"""A Llama on a text file of your own, or on Shakespeare.

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/llama.py --workdir=runs/llama
    python scripts/train.py --config=configs/llama.py:llama3-8b --dry_run

Default: 4 layers of width 128 with grouped queries, on characters, with the recipe of gpt_char.py;
1.714 nats per character on held-out plays (seed 0) after 2:02 on 2 cores of an AMD EPYC (Zen 5),
beside other work.

Variants, after a colon, are published shapes, planned and counted but not trained: `llama2-7b`,
`llama3-8b`, `mistral-7b`, `qwen2-72b`, `qwen3-8b`. They compute in bfloat16, keep only the input of
each block for the backward pass, and shard parameters and optimizer over all devices.

    python scripts/plan.py --config=configs/llama.py:qwen2-72b --topology=v5p:4x4x4 --tokens=1T
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model", "llama", num_layers=4, num_heads=4, num_kv_heads=2, width=128, context=64
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


def _published(vocab_size: int, num_layers: int, num_heads: int, width: int, **more) -> dict:
    """A published model, with batches of 256 windows of at most 8,192 tokens."""
    shape = {"num_layers": num_layers, "num_heads": num_heads, "width": width}
    compute = {"dtype": "bfloat16", "scan_layers": True, "remat": "full"}
    return {
        "model": {"vocab_size": vocab_size, **shape, "compute": compute, **more},
        # The logits of all tokens of a row at once would take gigabytes.
        "task": {
            "context": min(8192, more["context"]),
            "batch_size": 256,
            "validation_batch_size": 256,
            "vocab_chunk": vocab_size // 8,
        },
        "mesh": {"data": 1, "fsdp": -1},
    }


VARIANTS = {
    "llama2-7b": _published(
        32_000, 32, 32, 4096, num_kv_heads=32, feed_forward_width=11_008, context=4096
    ),
    "llama3-8b": _published(
        128_256,
        32,
        32,
        4096,
        num_kv_heads=8,
        feed_forward_width=14_336,
        rope_base=500_000.0,
        context=8192,
    ),
    "mistral-7b": _published(
        32_000,
        32,
        32,
        4096,
        num_kv_heads=8,
        feed_forward_width=14_336,
        window=4096,
        context=8192,
    ),
    "qwen2-72b": _published(
        152_064,
        80,
        64,
        8192,
        num_kv_heads=8,
        feed_forward_width=29_568,
        rope_base=1e6,
        norm_epsilon=1e-6,
        qkv_bias=True,
        context=32_768,
    ),
    "qwen3-8b": _published(
        151_936,
        36,
        32,
        4096,
        num_kv_heads=8,
        head_dim=128,
        feed_forward_width=12_288,
        rope_base=1e6,
        norm_epsilon=1e-6,
        head_norm=True,
        context=32_768,
    ),
}
