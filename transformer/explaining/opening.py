"""Opens a run to look into it."""

from pathlib import Path

from ml_collections import ConfigDict

from transformer.data.text.embeddings import EMBEDDING_FILE
from transformer.runs.opening import Run, open_encoder, open_run
from transformer.training.saved_runs import read_run


def open_any(workdir: Path, checkpoint: str = "best") -> Run:
    """As `runs.opening.open_run`; of a published model that makes vectors, the encoder alone.

    Such a checkpoint has no head, so that it is no whole run.
    """
    opener = open_encoder if makes_vectors(read_run(workdir), workdir) else open_run
    return opener(workdir, checkpoint)


def makes_vectors(config: ConfigDict, workdir: Path) -> bool:
    """Whether a run is a published encoder whose output is one vector for each text."""
    return config.task.name == "masked_lm" and (workdir / EMBEDDING_FILE).is_file()
