"""A run folder made of published weights, which other scripts open like one that was trained."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from transformer.config import OPTIONAL_SECTIONS, section
from transformer.data.word_pieces import WordPieceTokenizer, make_word_piece_tokenizer
from transformer.errors import DataError, WorkdirError
from transformer.interop.bert import Published, read_bert
from transformer.tasks.base import tokenizer_digest
from transformer.tasks.base_encoder import LABELS_FILE
from transformer.training.checkpoints import Checkpoints
from transformer.training.experiment import write_config
from transformer.training.selection import from_paths

# Rows as long as those of most uses; positions there are for more.
_MAX_LENGTH = 256


def import_bert(source: Path, workdir: Path, max_length: int | None = None) -> Published:
    """Writes a run folder with the weights of a BERT checkpoint as its step 0.

    Args:
        source: a folder with `config.json`, `model.safetensors` and a tokenizer.
        workdir: the folder to make; it must be empty or missing.
        max_length: tokens of a row in the run; None takes 256, or what the model has.

    Raises:
        DataError: if the checkpoint cannot be read.
        WorkdirError: if the folder holds something.
    """
    if workdir.exists() and any(workdir.iterdir()):
        raise WorkdirError(f"{workdir} is not empty: give a new --workdir.")
    published = read_bert(source)
    context = published.model["context"]
    tokenizer = _tokenizer(source, published.lowercase)
    if tokenizer.vocab_size > published.model["vocab_size"]:
        raise DataError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} tokens, and the model's table "
            f"{published.model['vocab_size']}: they do not belong together."
        )
    values: dict[str, Any] = {}
    if published.job == "text_classification" and len(published.labels) == 1:
        # One number is a regression; the task's own data would have to be given.
        values = {"regression": True, "train": str(source)}
    config = ConfigDict()
    config.model = section(
        "model", "bert", **published.model, num_outputs=len(published.labels) or None
    )
    config.task = section(
        "task",
        published.job,
        max_length=min(max_length or _MAX_LENGTH, context),
        lowercase=published.lowercase,
        **values,
    )
    for name in ("optimizer", "train", "mesh", *OPTIONAL_SECTIONS):
        config[name] = section(name)
    workdir.mkdir(parents=True, exist_ok=True)
    tokenizer.save(workdir)
    if published.labels:
        labels = json.dumps(published.labels, ensure_ascii=False)
        (workdir / LABELS_FILE).write_text(labels, "utf-8")
    checkpoints = Checkpoints(workdir)
    checkpoints.save(
        0,
        {"params": from_paths(published.params)},
        data={},
        metadata={"data_fingerprint": tokenizer_digest(tokenizer.to_text())},
        validation_loss=None,
    )
    checkpoints.wait()
    checkpoints.close()
    write_config(config, workdir)
    return published


def _tokenizer(source: Path, lowercase: bool) -> WordPieceTokenizer:
    for name in ("tokenizer.json", "vocab.txt"):
        if (source / name).is_file():
            return make_word_piece_tokenizer(
                str(source / name), [], vocab_size=1, lowercase=lowercase
            )
    raise DataError(f"{source} has neither a tokenizer.json nor a vocab.txt.")
