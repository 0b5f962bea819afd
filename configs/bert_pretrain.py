"""BERT pretrained on raw text: masked words, and whether a sentence follows another.

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/bert_pretrain.py --workdir=runs/plays
    python scripts/train.py --config=configs/bert_pretrain.py:catalogues --workdir=runs/bert
    python scripts/train.py --config=configs/bert_pretrain.py --workdir=runs/mine \
        --config.task.path=my.txt

Default: Shakespeare's plays, 4 layers of width 128, rows of 64 tokens, 4,000 steps of 64 rows; its
128 positions leave room for the windows of bert_squad.py. On 2 cores of an AMD EPYC (Zen 5), beside
other work, 10:38 (14:32 of CPU time). Masked tokens of the held-out plays: 4.10 nats where their
unigram entropy is 6.37; next sentence: 70.9 percent.

Variants, after a colon:

- `catalogues`: the strings of Django's message catalogues in 93 languages, for bert_classify.py,
  3,000 steps without next sentences. 4.34 nats where the unigram entropy is 7.01; 6:20.
- `tiny`, `mini`, `small`, `medium`, `base`, `large`: the published sizes; counted, not trained.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


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
        dropout_rate=0.0,
    )
    config.task = section(
        "task",
        "masked_lm",
        max_length=64,
        batch_size=64,
        tokenizer={"size": 4096, "lowercase": False},
    )
    config.optimizer = section("optimizer", learning_rate=1e-3, warmup="200 steps", beta2=0.98)
    config.train = section(
        "train",
        duration="4000 steps",
        evaluate_every="500 steps",
        save_every="500 steps",
        steps_per_dispatch=10,
    )
    return complete(config, variant, VARIANTS)


def _published(num_layers: int, width: int) -> dict:
    """A published size; all have heads of 64 (Devlin et al. 2019; Turc et al. 2019)."""
    return {
        "model": {
            "num_layers": num_layers,
            "width": width,
            "num_heads": width // 64,
            "context": 512,
            "position_init": "normal",
            "dropout_rate": 0.1,
        },
        "task": {
            "max_length": 512,
            "batch_size": 256,
            "tokenizer": {"size": 30522, "lowercase": None},
        },
        "optimizer": {"learning_rate": 1e-4, "schedule": "linear", "warmup": "1%"},
        "train": {"duration": "1000000 steps", "evaluate_every": "1%", "save_every": "1%"},
    }


VARIANTS = {
    # Strings of programs have no meaningful order, so there is no next sentence to predict.
    "catalogues": {
        "model": {"context": 64, "position_init": "normal"},
        "task": {
            "embedded": "catalogues",
            "next_sentence": False,
            "tokenizer": {"size": 8192, "lowercase": None},
            "max_length": 64,
            "batch_size": 64,
        },
        "train": {"duration": "3000 steps"},
    },
    "tiny": _published(2, 128),
    "mini": _published(4, 256),
    "small": _published(4, 512),
    "medium": _published(8, 512),
    "base": _published(12, 768),
    "large": _published(24, 1024),
}
