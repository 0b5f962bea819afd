"""BERT fine-tuned to answer questions with a span of a text: who says this line of Shakespeare?

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/bert_pretrain.py --workdir=runs/plays
    python scripts/train.py --config=configs/bert_squad.py --workdir=runs/squad \
        --config.init.workdir=runs/plays
    python scripts/train.py --config=configs/bert_squad.py --workdir=runs/mine \
        --config.task.train=train-v2.0.json --config.task.validation=dev-v2.0.json

18,000 embedded questions, of which 15 percent have no answer, about contexts of 60 words, 2,000
held out in other plays. On 2 cores of an AMD EPYC (Zen 5) 1,000 steps of this size take about five
minutes. A run was stopped after 1,262 of 2,000; its best checkpoint, of step 1,000, answers 19.0
percent exactly (F1 24.1). It has not learned to find a line and who says it: to answer with the
first speaker of a context is right for 34 percent of longer ones, of 120 words. It shows the
machinery, not a recipe.
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
        "question_answering",
        max_length=96,
        batch_size=32,
        tokenizer={"size": 4096},
        num_questions=20_000,
        context_words=50,
        stride=32,
    )
    config.optimizer = section(
        "optimizer", learning_rate=1e-3, schedule="linear", warmup="10%", weight_decay=0.01
    )
    config.train = section(
        "train", duration="2000 steps", evaluate_every="250 steps", save_every="250 steps"
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {
    # The sizes of all-MiniLM-L6-v2.
    "minilm": {
        "model": {
            "num_layers": 6,
            "num_heads": 12,
            "width": 384,
            "feed_forward_width": 1536,
            "context": 512,
            "position_init": "normal",
        },
        "task": {"batch_size": 16, "num_questions": 10_000},
        "optimizer": {"learning_rate": 3e-4},
        "train": {
            "duration": "350 steps",
            "evaluate_every": "175 steps",
            "save_every": "175 steps",
        },
    },
}
