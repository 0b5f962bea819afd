"""BERT fine-tuned to tag words: which persons and places are named in Shakespeare?

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/bert_pretrain.py --workdir=runs/plays
    python scripts/train.py --config=configs/bert_tag.py --workdir=runs/tags \
        --config.init.workdir=runs/plays
    python scripts/train.py --config=configs/bert_tag.py --workdir=runs/mine \
        --config.task.train=train.conll --config.task.validation=dev.conll

500 steps of 32 sentences; the tags of the embedded ones are made by rule (`data.play_tags`). On 2
cores of an AMD EPYC (Zen 5), beside other work, about 50 seconds. F1 of entities in held-out plays
from the pretrained encoder 65.5, 66.9 and 65.8 percent (seeds 0, 1, 2), with random parameters and
the same tokenizer 45.9, 46.5 and 47.6. A list of the names in the training plays reaches 66.6: with
so little pretraining the model does not recognize new names by their context better than that. A
task with clearer answers is in python_names.py.
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
        dropout_rate=0.1,
    )
    config.task = section(
        "task",
        "tagging",
        embedded="plays",
        max_length=48,
        batch_size=32,
        tokenizer={"size": 4096},
    )
    config.optimizer = section(
        "optimizer", learning_rate=5e-4, schedule="linear", warmup="10%", weight_decay=0.01
    )
    config.train = section(
        "train", duration="500 steps", evaluate_every="100 steps", save_every="250 steps"
    )
    return complete(config, variant)
