"""ModernBERT (Warner et al. 2024) pretrained on raw text, then fine-tuned to answer questions.

    pip install -e '.[data,tensorboard]'
    python scripts/train.py --config=configs/modern_bert.py --workdir=runs/modern
    python scripts/train.py --config=configs/modern_bert.py:squad --workdir=runs/answers \
        --config.init.workdir=runs/modern
    echo "sentence" | python scripts/embed.py --workdir=runs/modern --output=vectors.npy

Default: masked words of Shakespeare's plays, 4 layers of width 128 whose window is 17 tokens, rows
of 64 tokens, 1,000 steps of 64 rows; 30 percent of the tokens are hidden, and there are no next
sentences. Masked tokens of the held-out plays: 3.82 nats where their unigram entropy is 6.00.

Measured by benchmarks/recipes.py:

- questions (`:squad`) after pretraining: F1 59.7 (59.1, 60.4, 59.6; seeds 0, 1, 2); the most
  frequent place 24.2, the best overlap 45.9, the first speaker 25.7; 6.0 minutes of processor
  time a run after 4.8 minutes that all seeds share; 1 core of AMD EPYC, 2026-11-28
  [questions 72c043b8]

(End of what was measured.)

Variants, after a colon:

- `squad`: the questions of bert_squad.py, 1,000 steps.
- `base`: the published size and its rows of 1,024 tokens; not trained here.

Other jobs of encoders take the model from the pretrained run: --config=configs/finetune.py:FOLDER
continues the job of a run.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section

# Few pieces, so that the names of held-out plays consist of pieces that are known from other
# names, and their capitals are seen.
TOKENIZER = {"size": 1000, "lowercase": False}
TASKS = {
    "masked_lm": {
        "max_length": 64,
        "batch_size": 64,
        "tokenizer": TOKENIZER,
        "next_sentence": False,
        "masking_rate": 0.3,
    },
    "question_answering": {
        "max_length": 144,
        "batch_size": 32,
        "tokenizer": TOKENIZER,
        "context_words": 50,
        "stride": 32,
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
        context=160,
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
    "squad": {
        "optimizer": {"learning_rate": 2e-3, "schedule": "linear", "weight_decay": 0.01},
    },
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
