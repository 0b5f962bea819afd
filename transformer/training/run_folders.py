"""Run folders made of parameters that are there already: imported ones, or merged ones."""

from pathlib import Path
from typing import Any

from transformer.errors import WorkdirError
from transformer.tasks.base_labels import save_labels
from transformer.training.checkpoints import Checkpoints
from transformer.training.experiment import write_config


def require_new(workdir: Path) -> None:
    """Refuses a folder that holds something.

    Raises:
        WorkdirError: naming it.
    """
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"{workdir} is no folder: give a new --workdir.")
    if workdir.exists() and any(workdir.iterdir()):
        raise WorkdirError(f"{workdir} is not empty: give a new --workdir.")


def write_run(
    workdir: Path,
    config: Any,
    params: Any,
    *,
    tokenizer: Any,
    labels: tuple[str, ...],
    fingerprint: str,
) -> None:
    """Writes a run whose one checkpoint, of step 0, holds parameters and nothing else.

    Args:
        workdir: the folder to make.
        config: with all sections.
        params: a nested dict.
        tokenizer: with a method `save`; None where there is no text.
        labels: names of the outputs; empty for none.
        fingerprint: of the data, which begins with the digest of the tokenizer.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(workdir)
    if labels:
        save_labels(labels, workdir)
    checkpoints = Checkpoints(workdir)
    checkpoints.save(
        0,
        {"params": params},
        data={},
        metadata={"data_fingerprint": fingerprint},
        validation_loss=None,
    )
    checkpoints.wait()
    checkpoints.close()
    # Last: a folder with a config is a run.
    write_config(config, workdir)
