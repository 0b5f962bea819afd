"""BERT fine-tuned to tag words: what does each name in a Python function stand for?

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/bert_tag.py --workdir=runs/tags
    echo "def area ( box ) : return box . width" | python scripts/predict.py --workdir=runs/tags
    python scripts/train.py --config=configs/bert_tag.py --workdir=runs/mine \
        --config.task.train=train.conll --config.task.validation=dev.conll

Functions of Python's standard library, whole packages held out. Python's own parser and the rules
of scopes say what is a parameter, a local variable, an attribute, a method, a module and so on (ten
tags; see `data.embedded.python_names`). The default learns from nothing.

`:plays` is another task, the names of people and places in Shakespeare, tagged by rule
(`data.embedded.play_tags`), from `bert_pretrain.py` with `--config.init.workdir=runs/plays`: F1
65.5, 66.9 and 65.8 percent (seeds 0, 1, 2; about 50 seconds on 2 cores of an AMD EPYC, beside other
work), where a list of the names in the training plays reaches 66.6.

Measured by benchmarks/recipes.py:

- nothing yet

(End of what was measured.)
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
    config.task = section("task", "tagging", max_length=80, batch_size=32, tokenizer={"size": 4096})
    config.optimizer = section(
        "optimizer", learning_rate=2e-3, schedule="linear", warmup="10%", weight_decay=0.01
    )
    config.train = section(
        "train", duration="300 steps", evaluate_every="300 steps", save_every="300 steps"
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {
    "plays": {
        "model": {"dropout_rate": 0.1},
        "task": {"embedded": "plays", "max_length": 48},
        "optimizer": {"learning_rate": 5e-4},
        "train": {
            "duration": "500 steps",
            "evaluate_every": "100 steps",
            "save_every": "250 steps",
        },
    },
}
