"""What lies beside the weights of a published language model: its tokenizer, and how it writes."""

import shutil
from pathlib import Path
from typing import Any

from transformer.data.tokenizers import TOKENIZER_FILE, Tokenizer
from transformer.interop.side_files import write_json
from transformer.tasks.language_modeling import LanguageModeling


def write_language_files(task: LanguageModeling, model: Any, workdir: Path, folder: Path) -> None:
    """Writes the tokenizer's files and `generation_config.json`.

    Args:
        task: of the run.
        model: of the run.
        workdir: of the run.
        folder: the folder.
    """
    shutil.copy(workdir / TOKENIZER_FILE, folder)
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.context}
    if task.stop:
        words["eos_token"] = task.stop
    write_json(folder / "tokenizer_config.json", words)
    if task.stop:
        end = Tokenizer.load(workdir / TOKENIZER_FILE).index(task.stop)
        if end is not None:
            write_json(folder / "generation_config.json", {"eos_token_id": end})
