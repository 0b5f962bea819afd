"""Every task reads its files in one way: the same data, however the files are written."""

import codecs
import gzip
import json
import random

import pytest

from transformer.composition import with_fields
from transformer.data.labels.squad import Answer, Question, write_squad
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.errors import DataError
from transformer.tasks.denoising import Denoising
from transformer.tasks.language_modeling import LanguageModeling
from transformer.tasks.masked_lm import MaskedLM
from transformer.tasks.question_answering import QuestionAnswering
from transformer.tasks.tagging import Tagging
from transformer.tasks.text_classification import TextClassification
from transformer.tasks.text_to_text import TextToText
from transformer.tasks.translation import Translation

SOURCE = random.Random(0)
WORDS = ["the", "cat", "sees", "a", "dog", "under", "old\u2028oaks", "caf\u00e9"]


def sentences(count, end="\n"):
    return "".join(" ".join(SOURCE.choices(WORDS, k=6)) + end for _ in range(count))


def classified(ending):
    lines = sentences(40).split("\n")[:-1]
    if ending == ".jsonl":
        rows = [json.dumps({"text": x, "label": str(i % 2)}) for i, x in enumerate(lines)]
    else:
        separator = "," if ending == ".csv" else "\t"
        rows = [f"text{separator}label", *(f"{x}{separator}{i % 2}" for i, x in enumerate(lines))]
    return "\n".join(rows) + "\n"


def tagged():
    lines = (sentences(1, "").replace("\u2028", "").split(" ") for _ in range(40))
    return "\n".join("".join(f"{word} O\n" for word in line) for line in lines)


def paired():
    lines = sentences(40).split("\n")[:-1]
    return "".join(json.dumps({"source": x, "target": x[:9]}) + "\n" for x in lines)


def asked(path):
    context = sentences(1, "")
    answer = Answer(context[:3], 0)
    write_squad([Question(str(i), f"what {i}?", context, (answer,)) for i in range(20)], path)
    return path.read_text("utf-8")


QUESTIONS = {"max_question_length": 4, "stride": 8}
SMALL = {"max_length": 24, "tokenizer": TokenizerChoice("bpe", size=300)}
PAIRS = {"max_length": 90, "tokenizer": TokenizerChoice("character")}
TASKS = {
    "language modeling": (LanguageModeling, "path", ".txt", {"context": 8}),
    "masked": (MaskedLM, "path", ".txt", SMALL),
    "denoising": (
        Denoising,
        "path",
        ".txt",
        {"length": 16, "tokenizer": TokenizerChoice("character")},
    ),
    "jsonl": (TextClassification, "train", ".jsonl", SMALL),
    "csv": (TextClassification, "train", ".csv", SMALL),
    "tsv": (TextClassification, "train", ".tsv", SMALL),
    "tags": (Tagging, "train", ".conll", SMALL),
    "questions": (
        QuestionAnswering,
        "train",
        ".json",
        SMALL | QUESTIONS,
    ),
    "translation": (Translation, "train", ".src", PAIRS),
    "pairs": (TextToText, "train", ".jsonl", PAIRS | {"prefix": "", "max_target_length": 90}),
}


def content_of(name, folder):
    if name in ("jsonl", "csv", "tsv"):
        return classified(TASKS[name][2])
    if name == "tags":
        return tagged()
    if name == "questions":
        return asked(folder / "questions.json")
    if name == "pairs":
        return paired()
    return "\n".join(sentences(8) for _ in range(12))


def written(text, *, mark=b"", ends="\n", compress=bytes):
    return compress(mark + text.replace("\n", ends).encode())


WAYS = {
    "CRLF": {"ends": "\r\n"},
    "mark": {"mark": codecs.BOM_UTF8},
    "all": {"ends": "\r\n", "mark": codecs.BOM_UTF8, "compress": gzip.compress},
}


def fingerprint(name, path):
    kind, field, _, options = TASKS[name]
    given = f"{path},{path}" if kind is Translation else str(path)
    data = with_fields(kind(), **{field: given}, **options).load(None)
    return data.fingerprint(), data.describe()


@pytest.mark.parametrize("name", TASKS)
def test_data_are_the_same_however_they_are_written(name, tmp_path):
    content, ending = content_of(name, tmp_path), TASKS[name][2]
    found = {}
    for way, how in {"plain": {}, **WAYS}.items():
        path = tmp_path / way / f"train{ending}"
        path.parent.mkdir()
        path.write_bytes(written(content, **how))
        found[way] = fingerprint(name, path)
    assert [found[way] for way in WAYS] == [found["plain"]] * len(WAYS)


@pytest.mark.parametrize("name", TASKS)
def test_other_encodings_are_named(name, tmp_path):
    path = tmp_path / f"train{TASKS[name][2]}"
    path.write_text(content_of(name, tmp_path), "utf-16")
    with pytest.raises(DataError, match=rf"{path.name} is UTF-16"):
        fingerprint(name, path)
