"""What the run of a published encoder has beside its parameters."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from transformer.training.sections import section
from transformer.data.text.embeddings import EMBEDDING_FILE
from transformer.errors import DataError
from transformer.interop.tokenizers.encoders import ReadTokenizer, read_encoder_tokenizer
from transformer.interop.opening import Opened
from transformer.interop.published import Published
from transformer.interop.sentence_transformers import read_embedding
from transformer.interop.side_files import SideFile

# What reads questions: tokens of a question, and between the starts of two windows.
_QUESTION, _STRIDE = 64, 128


class EncoderRun(NamedTuple):
    """What a run has beside its parameters.

    Attributes:
        task: the section of its config.
        read: the tokenizer and how it is used.
        files: further files of the run, their text by name.
    """

    task: ConfigDict
    read: ReadTokenizer
    files: dict[str, str]


def encoder_run(opened: Opened, published: Published, max_length: int | None) -> EncoderRun:
    """The run that a published encoder becomes.

    Args:
        opened: the folder.
        published: what was read of it.
        max_length: tokens of a row; None takes what the publisher says, or all positions.

    Raises:
        DataError: if a side file asks for what is not done here.
    """
    files, where = opened.source.files, opened.source.where
    kind = published.family.kinds[0]
    read = read_encoder_tokenizer(files, where, kind, opened.tokenizer)
    context = published.model["context"]
    if kind == "roberta" and published.model["position_offset"] != read.tokenizer.pad + 1:
        raise DataError(
            f"{opened.source.config.where} has pad_token_id "
            f"{published.model['position_offset'] - 1}, and the tokenizer's padding is token "
            f"{read.tokenizer.pad}: positions begin behind its number."
        )
    longest = min(max_length or read.max_length or context, context)
    values: dict[str, Any] = {
        "max_length": longest,
        "lowercase": read.tokenizer.lowercase,
        "special_tokens": read.finds_special,
    }
    if published.job == "text_classification":
        values |= _problem(opened.source.config, len(published.labels), where)
    elif published.job == "tagging":
        values["first_space"] = read.first_space
    elif published.job == "question_answering":
        values |= _windows(longest, 2 + read.tokenizer.separators)
    else:
        values["next_sentence"] = "next_sentence/kernel" in published.params
    embedding = read_embedding(files, where)
    more = {}
    if embedding is not None:
        length = max_length or embedding.max_length or read.max_length or context
        embedding = dataclasses.replace(embedding, max_length=min(length, context))
        more = {EMBEDDING_FILE: embedding.to_text()}
    return EncoderRun(section("task", published.job, **values), read, more)


def _problem(config: SideFile, count: int, where: Path) -> dict[str, Any]:
    """What the outputs of a text's head are.

    Raises:
        DataError: if `problem_type` is none, or not one of so many outputs.
    """
    problem = config.get("problem_type")
    # The task's own data would have to be given for training.
    number = {"regression": True, "train": str(where)}
    if problem == "multi_label_classification":
        return {"multi_label": True}
    if count == 1 and problem in (None, "regression"):
        # Where nothing is said of it, theirs shows a number between 0 and 1.
        return number | {"sigmoid": problem is None}
    if count > 1 and problem in (None, "single_label_classification"):
        return {}
    raise DataError(
        f"{config.where} has problem_type {problem!r} and {count} outputs: expected "
        f"multi_label_classification, regression of 1 or single_label_classification of several."
    )


def _windows(longest: int, special: int) -> dict[str, Any]:
    """How long questions may be, and how far apart windows begin."""
    question = max(1, min(_QUESTION, (longest - special) // 2))
    room = max(1, longest - special - question)
    return {"max_question_length": question, "stride": min(_STRIDE, max(1, room // 2))}
