"""What every config of `configs/` describes, as text: its resolved values and its parameters.

python -m tests.golden.snapshots     # writes them again; look at the diff before it is committed
"""

import functools
import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import jax
from ml_collections import ConfigDict

from transformer.sections import flattened
from transformer.training.experiment import initial_parameters
from transformer.training.sections import build, owner, with_optional_sections
from transformer.training.selection import by_path

FOLDER = Path(__file__).parent
CONFIGS = Path(__file__).parents[2] / "configs"
# Begins from a run folder, whose model it takes.
WITHOUT = {"finetune"}
# What the data would decide.
SIZES = {
    "vocab_size": 100,
    "num_outputs": 10,
    "channels": 3,
    "num_features": 40,
    "num_squares": 9,
    "num_values": 26,
    "num_actions": 4,
    "num_turns": 24,
}


def names() -> list[str]:
    """`FILE` and `FILE:VARIANT` of all configs."""
    found = []
    for path in sorted(CONFIGS.glob("*.py")):
        if path.stem not in WITHOUT:
            variants = getattr(_module(path), "VARIANTS", {})
            found += [path.stem, *(f"{path.stem}:{variant}" for variant in variants)]
    return found


def snapshot(name: str) -> str:
    """The values of a config, and after an empty line the parameters of its model."""
    config = config_of(name)
    return "\n".join([*values(config), "", *parameters(config), ""])


def config_of(name: str) -> ConfigDict:
    """A config by `FILE` or `FILE:VARIANT`."""
    file, _, variant = name.partition(":")
    return with_optional_sections(_module(CONFIGS / f"{file}.py").get_config(variant))


def values(config: ConfigDict) -> list[str]:
    """One line for each value of a config."""
    return [f"config.{key} = {value!r}" for key, value in sorted(flattened(config).items())]


def parameters(config: ConfigDict) -> list[str]:
    """One line for each parameter of a config's model, of layers that are alike once."""
    described = (
        f"{path} {box.value.dtype}{list(box.value.shape)} {box.names}"
        for path, box in _parameters(config).items()
    )
    counts = Counter(re.sub(r"layer_\d+", "layer_*", line) for line in described)
    return [f"{line} x{count}" for line, count in sorted(counts.items())]


def file_of(name: str) -> Path:
    """Where a snapshot is kept."""
    return FOLDER / f"{re.sub('[:/]', '.', name)}.txt"


def _parameters(config: ConfigDict) -> dict:
    task = build("task", config.task)
    for field in owner("task", config.task.name).DIMENSIONS:
        if config.model[field] is None:
            config.model[field] = SIZES[field]
    model, lora = build("model", config.model), build("lora", config.lora)
    key = jax.eval_shape(lambda: jax.random.key(0))
    boxed = jax.eval_shape(lambda key: initial_parameters(model, task, lora, key), key)
    return by_path(boxed)


@functools.cache
def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Writes all snapshots, and deletes those of configs that are no more."""
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    for name in names():
        file_of(name).write_text(snapshot(name), "utf-8")


if __name__ == "__main__":
    main()
