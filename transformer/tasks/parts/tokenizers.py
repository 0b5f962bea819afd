"""The tokenizer of a run, and the data that it belongs to."""

import hashlib
from pathlib import Path

from transformer.data.tokenizers.protocol import Tokenizer
from transformer.errors import WorkdirError
from transformer.tasks.parts.abilities import Tokenized
from transformer.tasks.parts.protocol import Task


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """A short name for exactly this tokenizer; fingerprints of texts begin with it."""
    return hashlib.sha256(tokenizer.identity().encode()).hexdigest()[:32]


def require_same_tokenizer(task: Task, workdir: Path, fingerprint: str) -> None:
    """Refuses a tokenizer in a run's folder that is not the one of its checkpoint.

    Args:
        task: the task of the run; a task without tokenizers has nothing to refuse.
        workdir: the run folder.
        fingerprint: the fingerprint of the data that the checkpoint was trained on.

    Raises:
        WorkdirError: if the tokenizers differ, or there is none.
    """
    if not isinstance(task, Tokenized):
        return
    if not fingerprint.startswith(tokenizer_digest(task.load_tokenizer(workdir))):
        raise WorkdirError(
            f"the tokenizer in {workdir} is not the one its checkpoints were trained with: put "
            f"that one back."
        )
