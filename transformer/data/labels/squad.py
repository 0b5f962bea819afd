"""Questions on texts whose answers are spans of the text: the files of SQuAD.

Version 1.1 (Rajpurkar et al. 2016) has an answer to every question; version 2 (Rajpurkar et al.
2018) has questions that the text does not answer as well.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from transformer.data.reading.json_text import kind_of, loads
from transformer.data.reading.text import read_text, require_characters
from transformer.errors import DataError
from transformer.files import write_json
from transformer.types import Json

_KINDS = {dict: "an object", list: "a list", str: "a string", int: "a whole number"}
T = TypeVar("T")
# Characters of a text that a message shows.
_SHOWN = 60


class Answer(NamedTuple):
    """A span of the context.

    Attributes:
        text: the characters as they stand there.
        start: place of the first one in the context, counted in Unicode code points.
    """

    text: str
    start: int


class Question(NamedTuple):
    """A question and the text it is asked about.

    Attributes:
        id: unique within the file.
        question: the text of the question.
        context: the text to answer from.
        answers: the answers of different annotators; none if the context has no answer.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


def read_squad(path: str | Path) -> list[Question]:
    """The questions of a SQuAD file, version 1.1 or 2, plain or gzip, in the order of the file.

    A question with `is_impossible` has no answers, whatever else its entry holds.

    Raises:
        DataError: if the file cannot be read, is no JSON, has another shape, has two questions of
            one id, an empty question or context, or an answer that does not stand in the context
            where the file says. The message names the place; nothing is repaired.
    """
    try:
        content = loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            f"A file of the form of SQuAD v1.1 or v2 was expected."
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not a SQuAD file: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds {kind_of(content)}: an object with the key 'data' was expected, as in "
            f"SQuAD v1.1 and v2."
        )
    found: dict[str, Question] = {}
    for paragraph, paragraph_place in _paragraphs(content, str(path)):
        context = _text(paragraph, "context", paragraph_place)
        for entry, place in _entries(paragraph, "qas", paragraph_place):
            question = _question(entry, context, place, str(path))
            if question.id in found:
                raise DataError(f"{path}: two questions have the id {question.id!r}: rename one.")
            found[question.id] = question
    if not found:
        raise DataError(f"{path} holds no questions.")
    return list(found.values())


def write_squad(questions: Sequence[Question], path: str | Path) -> None:
    """Writes questions in the format of SQuAD v2, for `read_squad`.

    Neighbours with the same context share a paragraph, so the order stays.

    Raises:
        DataError: if the file cannot be written.
    """
    paragraphs = [
        {"context": context, "qas": [_entry(question) for question in group]}
        for context, group in itertools.groupby(questions, lambda question: question.context)
    ]
    title = Path(path).name.split(".")[0]
    content = {"version": "v2.0", "data": [{"title": title, "paragraphs": paragraphs}]}
    try:
        write_json(Path(path), content, indent=None)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}.") from None


def _entry(question: Question) -> Json:
    return {
        "id": question.id,
        "question": question.question,
        "is_impossible": not question.answers,
        "answers": [{"text": text, "answer_start": start} for text, start in question.answers],
    }


def _paragraphs(content: Json, path: str) -> list[tuple[Json, str]]:
    """All paragraphs, each with its place in words."""
    return [
        paragraph
        for article, place in _entries(content, "data", path)
        for paragraph in _entries(article, "paragraphs", place)
    ]


def _question(entry: Json, context: str, place: str, path: str) -> Question:
    name = _text(entry, "id", place)
    place = f"{path}: question {name!r}"
    question = _text(entry, "question", place)
    impossible = entry.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise DataError(f"{place}: 'is_impossible' is {kind_of(impossible)}: true or false.")
    if impossible:
        return Question(name, question, context, ())
    answers = tuple(
        _answer(answer, context, place) for answer, _ in _entries(entry, "answers", place)
    )
    if not answers:
        raise DataError(
            f"{place} has no answers: mark one that the context does not answer with "
            f'"is_impossible": true, as in SQuAD v2.'
        )
    return Question(name, question, context, answers)


def _answer(entry: Json, context: str, place: str) -> Answer:
    place = f"{place}, an answer"
    text, start = _text(entry, "text", place), _value(entry, "answer_start", int, place)
    found = context[start : start + len(text)] if start >= 0 else ""
    if found == text:
        return Answer(text, start)
    place = f"{place}: 'answer_start' is {start}"
    if not 0 <= start <= len(context) - len(text):
        problem = f"{place}, where {_shown(text)} does not fit in: the context has {len(context)} "
        problem += "characters"
    else:
        problem = f"{place}, where the context has {_shown(found)}, not {_shown(text)}"
    nearest = _nearest(text, context, start)
    where = "nowhere" if nearest is None else f"at {nearest}, the nearest place"
    raise DataError(
        f"{problem}. The answer is found {where}: correct the file (places are counted from 0 in "
        f"Unicode code points)."
    )


def _nearest(text: str, context: str, start: int) -> int | None:
    """Where the context holds a text nearest to a place; the earlier of two."""
    start = max(start, 0)
    before = context.rfind(text, 0, start + len(text) - 1)
    after = context.find(text, start)
    places = [place for place in (before, after) if place >= 0]
    return min(places, key=lambda place: abs(place - start), default=None)


def _entries(owner: Json, key: str, place: str) -> list[tuple[Json, str]]:
    """The objects of a list, each with its place in words."""
    entries = _value(owner, key, list, place)
    places = [f"{place}, {key}[{index}]" for index in range(len(entries))]
    for entry, where in zip(entries, places, strict=True):
        if not isinstance(entry, dict):
            raise DataError(f"{where} is {kind_of(entry)}: an object was expected, as in SQuAD.")
    return list(zip(entries, places, strict=True))


def _text(owner: Json, key: str, place: str) -> str:
    """A string that is not empty and can be written as UTF-8."""
    text = _value(owner, key, str, place)
    if not text.strip():
        raise DataError(f"{place}: {key!r} is empty: a text was expected.")
    return require_characters(text, f"{place}: {key!r}")


def _value(owner: Json, key: str, kind: type[T], place: str) -> T:
    if key not in owner:
        raise DataError(f"{place} lacks {key!r}: {_KINDS[kind]} was expected, as in SQuAD.")
    value = owner[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{place}: {key!r} is {kind_of(value)}: {_KINDS[kind]} was expected.")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
