"""GPT-2 124M (Radford et al. 2019), trained from scratch on a text file with BPE.

    pip install -e '.[tensorboard]'
    python scripts/train.py --config=configs/gpt2.py --workdir=runs/gpt2 \
        --config.task.path=my.txt

124,439,808 parameters, embeddings tied. Meant for an accelerator; not yet trained to a score. A
step in a loop of steps on one H100: 76 to 80 ms, 14 GiB planned (docs/performance.md). For less:
`--config.model.compute.scan_layers=True --config.model.compute.remat=dots`. To show its parameters,
memory and FLOPs:

    python scripts/train.py --config=configs/gpt2.py --config.task.path=my.txt --dry_run
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """GPT-2 small; it has no variants."""
    config = ConfigDict()
    config.model = section(
        "model",
        "gpt",
        vocab_size=50257,
        compute={"dtype": "bfloat16", "fused_qkv": True},
    )
    config.task = section(
        "task",
        "language_modeling",
        tokenizer={"kind": "bpe", "size": 50257},
        batch_size=32,
        context=config.model.get_ref("context"),
        vocab_chunk=8192,
    )
    config.optimizer = section("optimizer", learning_rate=6e-4, warmup="2%")
    config.train = section(
        "train",
        duration="2.5e9 tokens",
        evaluate_every="500 steps",
        validation_batches=20,
        save_every="1000 steps",
    )
    return complete(config, variant)
