"""Scores of answers to questions, as the scripts published with SQuAD compute them.

A prediction is compared with an answer word by word, without case, punctuation and articles
(Rajpurkar et al. 2016, section 6.1). Of several answers the best match counts. For a question
without an answer, only the empty text is right (Rajpurkar et al. 2018).
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.labels.squad import Question
from transformer.errors import DataError

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


class NullThreshold(NamedTuple):
    """The score difference above which a question gets the empty answer.

    Attributes:
        threshold: a question gets the empty answer if its difference is above this.
        f1: the F1 with this threshold, in percent.
    """

    threshold: float
    f1: float


def normalize_answer(text: str) -> str:
    """A text in lower case, without ASCII punctuation and English articles, single-spaced.

    Punctuation is dropped first and leaves no gap, so `a.m.` becomes `am` and `the-end` `theend`.
    """
    text = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, truth: str) -> float:
    """1.0 if two texts are equal after normalization, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(truth))


def f1(prediction: str, truth: str) -> float:
    """Harmonic mean of precision and recall of the words, each counted as often as it occurs.

    Returns:
        Between 0 and 1. If one of the texts has no words left, 1.0 if the other has none either,
        else 0.0.
    """
    predicted, true = (normalize_answer(text).split() for text in (prediction, truth))
    if not predicted or not true:
        return float(predicted == true)
    shared = (Counter(predicted) & Counter(true)).total()
    return 2.0 * shared / (len(predicted) + len(true))


def squad_scores(predictions: Mapping[str, str], questions: Sequence[Question]) -> dict[str, float]:
    """Means over the questions, in percent.

    As in the script of version 2, answers without words after normalization do not count if there
    are others.

    Args:
        predictions: a text for the id of each question, empty for "there is no answer"; other ids
            are ignored.
        questions: the questions with their true answers.

    Returns:
        `exact_match` and `f1`. If some of the questions have answers and others have none, also
        `answerable_exact_match` and `answerable_f1` of the former, and `unanswerable_accuracy` of
        the latter.

    Raises:
        DataError: if there are no questions, or predictions are missing.
    """
    matches, overlaps, answerable = _each(predictions, questions)
    scores = {"exact_match": _percent(matches), "f1": _percent(overlaps)}
    if answerable.any() and not answerable.all():
        scores["answerable_exact_match"] = _percent(matches[answerable])
        scores["answerable_f1"] = _percent(overlaps[answerable])
        scores["unanswerable_accuracy"] = _percent(matches[~answerable])
    return scores


def best_null_threshold(
    predictions: Mapping[str, str], differences: Mapping[str, float], questions: Sequence[Question]
) -> NullThreshold:
    """The threshold with the highest F1 on these questions (Devlin et al. 2018, section 4.3).

    Args:
        predictions: for each question the best non-empty text.
        differences: for each question the score of no answer minus that of the prediction; infinite
            where there is no prediction.
        questions: the questions with their true answers.

    Raises:
        DataError: if there are no questions, or predictions or differences are missing.
    """
    answered = _each(predictions, questions)[1]
    empty = _each(dict.fromkeys(predictions, ""), questions)[1]
    _require(differences, questions, "difference")
    values = np.array([differences[question.id] for question in questions], np.float64)
    order = np.argsort(values, kind="stable")
    values = values[order]
    # Entry i: the sum if the i questions with the lowest differences are answered.
    sums = np.concatenate([[0.0], np.cumsum((answered - empty)[order])]) + empty.sum()
    # Questions with equal differences are answered together or not at all.
    possible = np.concatenate([[True], values[1:] > values[:-1], [True]])
    best = int(np.argmax(np.where(possible, sums, -np.inf)))
    threshold = values[best - 1] if best else values[0] - 1.0
    return NullThreshold(float(threshold), float(100.0 * sums[best] / len(values)))


def _each(
    predictions: Mapping[str, str], questions: Sequence[Question]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each question its exact match, its F1, and whether it has an answer."""
    _require(predictions, questions, "prediction")
    truths = [_truths(question) for question in questions]
    pairs = [
        (predictions[question.id], texts) for question, texts in zip(questions, truths, strict=True)
    ]
    return (
        np.array(
            [max(exact_match(prediction, text) for text in texts) for prediction, texts in pairs]
        ),
        np.array([max(f1(prediction, text) for text in texts) for prediction, texts in pairs]),
        np.array([bool(question.answers) for question in questions]),
    )


def _truths(question: Question) -> list[str]:
    return [answer.text for answer in question.answers if normalize_answer(answer.text)] or [""]


def _require(known: Mapping[str, object], questions: Sequence[Question], what: str) -> None:
    if not questions:
        raise DataError("there are no questions to score.")
    missing = [question.id for question in questions if question.id not in known]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(questions):,} questions have no {what}, the first of them "
            f"{missing[0]!r}: give one for each, an empty text where there is no answer."
        )


def _percent(values: np.ndarray) -> float:
    return float(100.0 * values.mean())
