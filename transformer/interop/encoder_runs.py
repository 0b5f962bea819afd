"""Encoders: the run made from an imported one, and the files of an exported one."""

import dataclasses
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import tokenizers
from tokenizers import pre_tokenizers

from transformer.data.text.embeddings import EMBEDDING_FILE, load_embedding
from transformer.data.tokenizers.pieces import NAME_KEYS, EncoderTokenizer
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.errors import DataError
from transformer.files import write_json, write_text
from transformer.interop.family import Head, Published, RunParts, Source, Trained
from transformer.interop.opening import tokenizer_classes
from transformer.interop.sentence_transformers import read_embedding, write_embedding
from transformer.interop.side_files import CONFIG, GENERATION, SETTINGS, SideFile, SideFiles
from transformer.interop.tokenizers.encoders import EncoderClass, read_encoder_tokenizer
from transformer.limits import LEAST_ROW
from transformer.types import Json

# Maps the end of the class name in a checkpoint to our job: the head of the encoder.
JOBS = {
    "ForSequenceClassification": "text_classification",
    "ForTokenClassification": "tagging",
    "ForQuestionAnswering": "question_answering",
}
# Tokens of a question, and tokens between the starts of two windows.
_QUESTION, _STRIDE = 64, 128


@runtime_checkable
class _Encoder(Protocol):
    """Sizes of an encoder."""

    context: int
    width: int


class _EncoderInput(Protocol):
    """How texts become rows of tokens."""

    max_length: int
    special_tokens: bool


@runtime_checkable
class _EncoderTask(Protocol):
    """The task of an encoder, which says how texts become rows."""

    inputs: _EncoderInput


@runtime_checkable
class _TextClasses(Protocol):
    """The outputs of a text classifier."""

    multi_label: bool
    regression: bool
    sigmoid: bool


@runtime_checkable
class _Tags(Protocol):
    """How a tagger reads words."""

    first_space: bool


# The class of an encoder, and a run of it.
Encoder = TypeVar("Encoder")
TrainedEncoder = Trained[Encoder, _EncoderTask, EncoderTokenizer]


def encoder_head(files: SideFiles, *, has_output: bool) -> Head:
    """The job of an encoder, from the class that its config names.

    Args:
        files: the side files of the model.
        has_output: whether there is an output layer, such as one of classes.
    """
    config, generation = files[CONFIG], files[GENERATION]
    generation.irrelevant(dict.fromkeys(generation, "of models that write"))
    architecture = next(iter(config.texts("architectures")), "")
    jobs = [job for name, job in JOBS.items() if architecture.endswith(name)]
    job = jobs[0] if jobs and has_output else "masked_lm"
    if job != "text_classification":
        config.irrelevant({"problem_type": "of classes of texts"})
    if job in ("text_classification", "tagging"):
        return Head(job, None)
    outputs = ("id2label", "label2id", "num_labels")
    config.irrelevant(dict.fromkeys(outputs, "this job's outputs have no names"))
    return Head(job, ("start", "end") if job == "question_answering" else ())


def encoder_run(
    usual_class: str, source: Source, published: Published, max_length: int | None
) -> RunParts:
    """The run made from a published encoder.

    Args:
        usual_class: the default tokenizer class; see `tokenizers.encoders`.
        source: the opened checkpoint.
        published: what was read from it.
        max_length: tokens of a row; None takes the publisher's value, or all positions.

    Raises:
        DataError: if a side file requires something unsupported.
    """
    files, where = source.files, source.where
    read = read_encoder_tokenizer(
        files, where, tokenizer_classes(EncoderClass), usual_class, source.tokenizer
    )
    context = published.model["context"]
    longest = min(max_length or read.max_length or context, context)
    if max_length is None and longest < LEAST_ROW:
        short = source.config.where, "max_position_embeddings"
        if longest < context:
            short = files[SETTINGS].where, "model_max_length"
        raise DataError(
            f"{short[0]}: {short[1]} leaves {longest} tokens of a row: expected at least "
            f"{LEAST_ROW}."
        )
    values: Json = {
        "max_length": longest,
        "tokenizer": {"lowercase": read.tokenizer.lowercase},
        "special_tokens": read.finds_special,
    }
    if published.job == "text_classification":
        values |= _problem(source.config, len(published.labels), where)
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
    return RunParts(values, read.tokenizer, more)


def _problem(config: SideFile, count: int, where: Path) -> Json:
    """The kind of outputs of a text head.

    Raises:
        DataError: if `problem_type` is invalid, or does not fit the number of outputs.
    """
    problem = config.get("problem_type")
    # A placeholder: training needs data of its own.
    number = {"regression": True, "train": str(where)}
    if problem == "multi_label_classification":
        return {"multi_label": True}
    if count == 1 and problem in (None, "regression"):
        # Without a problem_type, their pipeline shows a number between 0 and 1.
        return number | {"sigmoid": problem is None}
    if count > 1 and problem in (None, "single_label_classification"):
        return {}
    raise DataError(
        f"{config.where} has problem_type {problem!r} and {count} outputs: expected "
        f"multi_label_classification, regression of 1 or single_label_classification of several."
    )


def _windows(longest: int, special: int) -> dict[str, int]:
    """Maximum length of questions, and the distance between the starts of windows."""
    question = max(1, min(_QUESTION, (longest - special) // 2))
    room = max(1, longest - special - question)
    return {"max_question_length": question, "stride": min(_STRIDE, max(1, room // 2))}


def problem_type(trained: TrainedEncoder) -> dict[str, str]:
    """The `problem_type` of a text classifier for `config.json`; empty for other jobs."""
    task: object = trained.task
    if not isinstance(task, _TextClasses):
        return {}
    if task.multi_label:
        return {"problem_type": "multi_label_classification"}
    if task.regression:
        # Without a problem_type, their pipeline applies a sigmoid to a single number.
        return {} if task.sigmoid else {"problem_type": "regression"}
    several = len(trained.labels) > 1
    return {"problem_type": "single_label_classification"} if several else {}


def write_encoder_files(trained: TrainedEncoder[_Encoder], folder: Path) -> list[str]:
    """Writes `tokenizer.json`, `tokenizer_config.json`, and the pooling files if there is pooling.

    Args:
        trained: the run.
        folder: the folder to write to.
    """
    inputs, model, tokenizer = trained.task.inputs, trained.model, trained.tokenizer
    write_text(folder / TOKENIZER_FILE, _tokenizer_text(trained))
    names = tokenizer.names._asdict()
    types = ["token_type_ids"] if tokenizer.second_type else []
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": min(inputs.max_length, model.context),
        "model_input_names": ["input_ids", *types, "attention_mask"],
        **{key: names[field] for field, key in NAME_KEYS.items()},
        "do_lower_case": tokenizer.lowercase,
        # Mask tokens are always recognized in a text.
        "split_special_tokens": not (inputs.special_tokens or trained.job == "masked_lm"),
    }
    if tokenizer.separators > 1:
        # RoBERTa has further names for two of them.
        settings |= {"bos_token": names["start"], "eos_token": names["separator"]}
    write_json(folder / "tokenizer_config.json", settings)
    if (trained.workdir / EMBEDDING_FILE).is_file():
        write_embedding(load_embedding(trained.workdir), model.width, folder)
    return []


def _tokenizer_text(trained: TrainedEncoder) -> str:
    """The text of the tokenizer as the task uses it."""
    text = trained.tokenizer.to_json()
    library = tokenizers.Tokenizer.from_str(text)
    spaces, task = library.pre_tokenizer, trained.task
    if not isinstance(task, _Tags) or not isinstance(spaces, pre_tokenizers.ByteLevel):
        return text
    library.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=spaces.add_prefix_space or task.first_space,
        use_regex=spaces.use_regex,
    )
    return library.to_str(pretty=True)
