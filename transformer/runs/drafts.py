"""Who guesses the next tokens of a text, as a user names it."""

from pathlib import Path

from transformer.decoding.preparing import in_computed_dtypes
from transformer.decoding.speculation import Draft, Guesses, Lookup
from transformer.errors import ConfigError
from transformer.nn.decoder import DecoderOnly
from transformer.runs.opening import Run, open_run
from transformer.tasks.parts.abilities import Tokenized
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.types import Params

LOOKUP = "lookup"


def open_guesses(draft: str, run: Run, count: int | None = None) -> tuple[Guesses, Params]:
    """What guesses for a run, and its parameters.

    Args:
        draft: `lookup`, which looks the text up in itself, or the folder of a run with a smaller
            model and the same tokens.
        run: the run that writes.
        count: how many tokens a guess has; None takes what is usual.

    Raises:
        ConfigError: if the run of the smaller model has other tokens, a shorter context, or does
            not continue texts.
        WorkdirError: if it cannot be opened.
        CheckpointError: likewise.
    """
    if draft == LOOKUP:
        return (Lookup() if count is None else Lookup(count)), {}
    smaller = open_run(Path(draft))
    model = smaller.model
    if not (isinstance(model, DecoderOnly) and isinstance(smaller.task, Tokenized)):
        raise ConfigError(
            f"--draft={draft} is a run of {smaller.config.task.name}: give a run of a smaller "
            f"language model, or {LOOKUP}."
        )
    assert isinstance(run.task, Tokenized)
    digests = {tokenizer_digest(r.task.load_tokenizer(r.workdir)) for r in (run, smaller)}
    if len(digests) > 1:
        raise ConfigError(
            f"--draft={draft} has another tokenizer than {run.workdir}, and a draft must write the "
            f"same tokens. Train it with --config.task.tokenizer.kind={run.workdir}/tokenizer.json."
        )
    if model.context < run.model.context:
        raise ConfigError(
            f"--draft={draft} reads {model.context:,} tokens, and {run.workdir} "
            f"{run.model.context:,}: give a draft with at least the same config.model.context."
        )
    guesses = Draft(model.for_writing())
    params = in_computed_dtypes(model, smaller.params)
    return (guesses if count is None else Draft(guesses.model, count)), params
