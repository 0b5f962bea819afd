"""A language model, such as an imported one, learns to write a line after a text.

    pip install -e '.[interop,tensorboard]'
    python scripts/import_hf.py --source=SmolLM2.gguf --workdir=runs/smollm2 --scan_layers
    python scripts/train.py --config=configs/completion.py:runs/smollm2 --workdir=runs/purposes
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from transformer.config import complete, section
from transformer.errors import ConfigError
from transformer.training.experiment import read_config


def get_config(variant: str = "") -> ConfigDict:
    """The config for a run to begin from.

    Args:
        variant: the folder of that run.

    Raises:
        ConfigError: if no run is named.
        WorkdirError: if the folder is not a run.
    """
    if not variant:
        raise ConfigError("name the run to start from: --config=configs/completion.py:FOLDER.")
    source: Any = read_config(Path(variant))
    model = source.model.to_dict()
    # JSON has no tuples.
    model = {key: tuple(x) if isinstance(x, list) else x for key, x in model.items()}
    config: Any = ConfigDict()
    config.model = section("model", model.pop("name"), **model)
    config.task = section("task", "completion", max_length=80, max_target_length=28, batch_size=8)
    config.optimizer = section("optimizer", learning_rate=1e-3, warmup="10 steps", weight_decay=0.0)
    config.train = section(
        "train", duration="60 steps", evaluate_every="60 steps", save_every="60 steps"
    )
    config.init = section("init", workdir=variant)
    config.lora = section("lora", rank=8, trained="")
    return complete(config)
