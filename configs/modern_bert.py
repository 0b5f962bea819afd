"""ModernBERT (Warner et al. 2024) pretrained on raw text, then fine-tuned to answer questions.

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/modern_bert.py --workdir=runs/modern
    python scripts/train.py --config=configs/modern_bert.py:squad --workdir=runs/answers \
        --config.init.workdir=runs/modern
    echo "sentence" | python scripts/embed.py --workdir=runs/modern --output=vectors.npy

Default: masked words of Shakespeare's plays, 4 layers of width 128 whose window is 17 tokens, rows
of 64 tokens, 1,000 steps of 64 rows; 30 percent of the tokens are hidden, and there are no next
sentences. On one core of an Intel Xeon, beside other work: 7:22 (6:15 of CPU time). Masked
tokens of the held-out plays: 4.61 nats where their unigram entropy is 6.43.

Variants, after a colon:

- `squad`: the questions of bert_squad.py, 1,000 steps; not measured.
- `base`: the published size and its rows of 1,024 tokens; not trained here.

Other jobs of encoders take the model from the pretrained run: --config=configs/finetune.py:FOLDER
continues the job of a run.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section

TASKS = {
    "masked_lm": {
        "max_length": 64,
        "batch_size": 64,
        "tokenizer": {"size": 4096, "lowercase": False},
        "next_sentence": False,
        "masking_rate": 0.3,
    },
    "question_answering": {
        "max_length": 128,
        "batch_size": 32,
        "tokenizer": {"size": 4096},
        "context_words": 60,
        "no_answer": True,
        "unanswerable": 0.15,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    task = "question_answering" if variant == "squad" else "masked_lm"
    config = ConfigDict()
    config.model = section(
        "model",
        "modern_bert",
        num_layers=4,
        num_heads=4,
        width=128,
        feed_forward_width=192,
        context=128,
        window=17,
    )
    config.task = section("task", task, **TASKS[task])
    config.optimizer = section("optimizer", learning_rate=1e-3, warmup="10%", beta2=0.98)
    config.train = section(
        "train",
        duration="1000 steps",
        evaluate_every="250 steps",
        save_every="250 steps",
        steps_per_dispatch=10,
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {
    "squad": {"optimizer": {"schedule": "linear", "weight_decay": 0.01}},
    # Section 2.2 and appendix A of the paper, except for the optimizer and its schedule.
    "base": {
        "model": {
            "vocab_size": 50_368,
            "num_layers": 22,
            "num_heads": 12,
            "width": 768,
            "feed_forward_width": 1152,
            "context": 8192,
            "window": 65,
        },
        "task": {
            "tokenizer": {"kind": "bpe", "size": 50_368, "lowercase": None},
            "max_length": 1024,
            "batch_size": 4608,
        },
        "optimizer": {"learning_rate": 8e-4},
    },
}
