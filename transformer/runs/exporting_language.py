"""What lies beside the weights of a published language model: its tokenizer, and how it writes."""

from pathlib import Path
from typing import Any

from transformer.data.tokenizers.protocol import TOKENIZER_FILE, TextTokenizer
from transformer.files import write_bytes, write_json
from transformer.interop.generation import sampling_config
from transformer.tasks.language_modeling import LanguageModeling


def token_ids(task: LanguageModeling, workdir: Path) -> dict[str, Any]:
    """The tokens that `config.json` and `generation_config.json` name."""
    ends = _ends(task, task.load_tokenizer(workdir))
    return {
        "bos_token_id": task.begin,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends) or None,
        "pad_token_id": task.pad,
    }


def _ends(task: LanguageModeling, tokenizer: TextTokenizer) -> tuple[int, ...]:
    """All tokens that end a text: also the one that the run knows by its text alone."""
    named = tokenizer.index(task.stop) if task.stop else None
    return tuple(dict.fromkeys([*task.stop_ids, *([] if named is None else [named])]))


def write_language_files(task: LanguageModeling, model: Any, workdir: Path, folder: Path) -> None:
    """Writes the tokenizer's files and `generation_config.json`.

    Args:
        task: of the run.
        model: of the run.
        workdir: of the run.
        folder: the folder.
    """
    write_bytes(folder / TOKENIZER_FILE, (workdir / TOKENIZER_FILE).read_bytes())
    tokenizer = task.load_tokenizer(workdir)
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.context}
    tokens = {"bos_token": task.begin, "pad_token": task.pad}
    tokens["eos_token"] = next(iter(_ends(task, tokenizer)), None)
    # Theirs would take a token that is named here out of the words it may be a part of.
    words |= {
        name: tokenizer.tokens([index])[0]
        for name, index in tokens.items()
        if index is not None and tokenizer.stands_apart(index)
    }
    write_json(folder / "tokenizer_config.json", words)
    named = {key: value for key, value in token_ids(task, workdir).items() if value is not None}
    writing = named | sampling_config(task.sampling())
    if task.max_new_tokens is not None:
        writing["max_new_tokens"] = task.max_new_tokens
    write_json(folder / "generation_config.json", writing)
