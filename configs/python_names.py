"""ModernBERT tags words: what does each name in a Python function stand for?

    pip install -e '.[tensorboard]'
    python scripts/train.py --config=configs/python_names.py --workdir=runs/names
    echo "def area ( box ) : return box . width" | python scripts/predict.py --workdir=runs/names

Functions of Python's standard library, whole packages and modules held out. Python's own parser and
the rules of scopes say what is a parameter, a local variable, an attribute, a method, a module and
so on (ten tags; see `data.embedded.python_names`). 4 layers of width 128 learn from nothing; a
window of 17 tokens tells what stands beside a name, and every third layer sees the whole function.
Nothing else is needed: no download, no pretraining.

Measured by benchmarks/recipes.py:

- from scratch: F1 91.1 (91.1, 91.2, 90.9; seeds 0, 1, 2); a list of words 51.6, words with their
  neighbours 75.2; 2.4 minutes of processor time a run; 1 core of AMD EPYC, 2026-11-27
  [tags 68797370]

(End of what was measured.)
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The config; there are no variants."""
    config = ConfigDict()
    config.model = section(
        "model",
        "modern_bert",
        num_layers=4,
        num_heads=4,
        width=128,
        feed_forward_width=256,
        context=128,
        window=17,
    )
    config.task = section(
        "task",
        "tagging",
        embedded="python",
        max_length=80,
        batch_size=32,
        # The case of letters tells classes and constants from other names.
        tokenizer={"size": 4096, "lowercase": False},
    )
    config.optimizer = section(
        "optimizer", learning_rate=3e-3, schedule="linear", warmup="10%", weight_decay=0.01
    )
    config.train = section(
        "train", duration="400 steps", evaluate_every="100 steps", save_every="400 steps"
    )
    return complete(config, variant)
