r"""T5 (Raffel et al. 2020): pretrained on spans of raw text, then trained on text-to-text tasks.

    pip install -e '.[translation,tensorboard]'
    python scripts/train.py --config=configs/t5.py:pretrain --workdir=runs/spans
    python scripts/train.py --config=configs/t5.py --workdir=runs/purposes \
        --config.init.workdir=runs/spans
    python scripts/train.py --config=configs/t5.py --workdir=runs/scratch
    python scripts/generate.py --workdir=runs/purposes < texts.txt

Default: what functions and classes of installed packages are for, from their names, parameters and
the rest of their docstrings (`data.embedded.purposes`); three whole packages are held out. 2+2
layers of version 1.1, width 128. `:pretrain` is span corruption on the same texts, without the
held-out packages.

Below every trivial method after 500 steps of each: it writes sentences of the right kind that do
not depend on the source, as in this time it has not learned to copy (LOG.md, 2026-11-28). For
summaries take completion.py.

Measured by benchmarks/recipes.py:

- spans, then purposes: ROUGE-L 10.1 (7.2, 10.3, 12.9; seeds 0, 1, 2); the first sentence 15.5,
  the best sentence by overlap 14.2, the words of the name 22.4; 3.1 minutes of processor time a
  run after 2.7 minutes that all seeds share; 1 core of AMD EPYC, 2026-11-28
  [purposes-t5 70769484]

(End of what was measured.)

Other variants, for data of your own and a machine with accelerators; not trained here:

- `small` and `base`: version 1.0 as published, 60,506,624 and 222,903,552 parameters.
- `v1_1-small` and `v1_1-base`: version 1.1, 76,961,152 and 247,577,856 parameters.

    python scripts/train.py --config=configs/t5.py:small --workdir=runs/news \
        --config.task.train=news.jsonl

Several tasks at once, `en.txt` and `de.txt` line by line, twice as often as the news:

    python scripts/train.py --config=configs/t5.py:small --workdir=runs/mixture \
        --config.task.train="news.jsonl;en.txt,de.txt" --config.task.rates="(1.0, 2.0)" \
        --config.task.prefix="summarize: ;translate English to German: "
"""

from ml_collections import ConfigDict

from transformer.config import complete, section

TASKS = {
    # Both hold out the same packages and share the vocabulary.
    "text_to_text": {
        "embedded": "purposes",
        "tokenizer": {"size": 4096},
        "max_length": 96,
        "max_target_length": 32,
        "batch_tokens": 3072,
        "packing": True,
    },
    "denoising": {
        "embedded": "purposes",
        "tokenizer": {"size": 4096},
        "length": 96,
        "batch_size": 32,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    task = "denoising" if variant == "pretrain" else "text_to_text"
    config = ConfigDict()
    config.model = section(
        "model",
        "t5",
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        head_dim=32,
        width=128,
        feed_forward_width=256,
        gated=True,
        activation="gelu_tanh",
        tie_embeddings=False,
        dropout_rate=0.0,
    )
    config.task = section("task", task, **TASKS[task])
    config.optimizer = section(
        "optimizer",
        learning_rate=3e-3,
        schedule="inverse_square_root",
        warmup="100 steps",
        weight_decay=0.0,
    )
    config.train = section(
        "train", duration="500 steps", evaluate_every="250 steps", save_every="250 steps"
    )
    return complete(config, variant, VARIANTS)


# Sections 2.1 and 3.1.2 of the paper, except for the optimizer: sizes, sources of 512 tokens, a
# constant learning rate for a task after pretraining.
PUBLISHED = {
    "task": {"tokenizer": {"size": 32_000}, "max_length": 512, "max_target_length": 128},
    "optimizer": {"learning_rate": 1e-3, "schedule": "constant", "warmup": "0 steps"},
    "train": {
        "duration": "10000 steps",
        "evaluate_every": "1000 steps",
        "save_every": "1000 steps",
    },
}
# The published table size, a multiple of 128 that is larger than the tokenizer.
TABLE = {"vocab_size": 32_128, "head_dim": 64, "dropout_rate": 0.1}
OLD = {"gated": False, "activation": "relu", "tie_embeddings": True}
SMALL = TABLE | {"width": 512}
BASE = TABLE | {"width": 768, "num_heads": 12, "num_encoder_layers": 12, "num_decoder_layers": 12}

VARIANTS = {
    "pretrain": {"train": {"duration": "500 steps", "evaluate_every": "500 steps"}},
    "small": PUBLISHED
    | {
        "model": SMALL
        | OLD
        | {
            "num_heads": 8,
            "num_encoder_layers": 6,
            "num_decoder_layers": 6,
            "feed_forward_width": 2048,
        }
    },
    "base": PUBLISHED | {"model": BASE | OLD | {"feed_forward_width": 3072}},
    "v1_1-small": PUBLISHED
    | {
        "model": SMALL
        | {
            "num_heads": 6,
            "num_encoder_layers": 8,
            "num_decoder_layers": 8,
            "feed_forward_width": 1024,
        }
    },
    "v1_1-base": PUBLISHED | {"model": BASE | {"feed_forward_width": 2048}},
}
