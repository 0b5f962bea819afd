"""Refuses combinations of config sections that cannot be trained."""

from collections.abc import Iterable

import jax

from transformer import sharding
from transformer.errors import ConfigError
from transformer.tasks.parts.models import HasOutputLayer, Model
from transformer.training.options import Train


def check_dtype(dtype: str) -> None:
    """Refuses dtypes whose gradients would underflow."""
    if dtype == "float16":
        raise ConfigError(
            "config.model.compute.dtype is 'float16': small gradients would become 0, as losses "
            "are not scaled here. Train with --config.model.compute.dtype=bfloat16 (or float32); a "
            "run can be opened in float16 afterwards."
        )


def check_vocabulary(name: str, model: Model) -> None:
    """Refuses a multiple of the vocabulary of a model that has none."""
    multiple = model.compute.vocab_multiple
    if multiple > 1 and not isinstance(model, HasOutputLayer):
        raise ConfigError(
            f"config.model.compute.vocab_multiple is {multiple}, and {name} has no vocabulary: "
            f"leave it out."
        )


def check_cast(train: Train, dtype: str, has_adapters: bool) -> None:
    """Refuses to convert parameters once where nothing would be converted, or it would not last.

    Args:
        train: `config.train`.
        dtype: of the computation.
        has_adapters: whether adapters are added to the kernels in each microbatch.
    """
    if not train.cast_once:
        return
    if dtype in (train.parameter_dtype, "float32"):
        raise ConfigError(
            f"config.train.cast_once has no effect: parameters are {train.parameter_dtype}, and "
            f"config.model.compute.dtype is {dtype!r}. Leave it out, or compute in bfloat16."
        )
    if has_adapters:
        raise ConfigError(
            "config.train.cast_once has no effect with config.lora.rank, as adapters are added to "
            "the kernels in float32: leave it out."
        )


def check_steps(**steps: int) -> None:
    """Refuses durations of more steps than a run can count."""
    for field, count in steps.items():
        if count >= 1 << 31:
            raise ConfigError(f"config.{field} is {count:,} steps: fewer than 2^31.")


def check_rows(rows: Iterable[int], microbatches: int, mesh: jax.sharding.Mesh) -> None:
    """Refuses batches that cannot be divided over microbatches and devices."""
    devices = sharding.batch_parts(mesh)
    if sharding.rows_by_process(mesh) is None:
        raise ConfigError(
            f"config.mesh cuts batches over {devices} devices in such a way that processes share "
            f"only some of their rows: let sequence x tensor divide the devices of one process, or "
            f"be a multiple of them."
        )
    for count in rows:
        if count % (microbatches * devices):
            over = f" over {devices} devices" if devices > 1 else ""
            raise ConfigError(
                f"config.task makes batches of {count} rows, which do not divide into "
                f"config.train.microbatches ({microbatches}){over}."
            )
