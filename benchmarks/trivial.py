"""What methods without learning, or next to none, reach on the embedded tasks.

python benchmarks/trivial.py --task=questions

A model that is not clearly better has learned nothing worth showing.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from transformer.data.embedded.play_question_kinds import kinds_of
from transformer.data.embedded.play_questions import play_questions
from transformer.data.embedded.purposes import purposes
from transformer.data.embedded.python_names import python_names
from transformer.data.labels.conll import TaggedSentences
from transformer.data.labels.squad import Question
from transformer.scoring.entities import OUTSIDE, entity_scores
from transformer.scoring.rouge import rouge_scores
from transformer.scoring.squad import squad_scores

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of a text in small letters; `_` and changes of case separate them, too."""
    return [word.lower() for word in _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))]


# ------------------------------------------------------------------------------ questions


def most_frequent_place(train: Sequence[Question], asked: Sequence[Question]) -> dict[str, str]:
    """For each kind of question, the words of the context that were most often the answer."""
    places: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for kind, question in zip(kinds_of([q.question for q in train]), train, strict=True):
        for answer in question.answers[:1]:
            first = len(question.context[: answer.start].split())
            places[kind][first, first + len(answer.text.split())] += 1
    found = {}
    for kind, question in zip(kinds_of([q.question for q in asked]), asked, strict=True):
        ((first, end), _), *_ = places[kind].most_common(1) or [((0, 1), 0)]
        found[question.id] = " ".join(question.context.split()[first:end])
    return found


def best_overlap(train: Sequence[Question], asked: Sequence[Question]) -> dict[str, str]:
    """The line that shares most words with the question, without the words of the question."""
    found = {}
    for question in asked:
        known = set(words(question.question))
        lines = question.context.split("\n")
        best = max(lines, key=lambda line: len(known & set(words(line))))
        found[question.id] = " ".join(
            word for word in best.split() if known.isdisjoint(words(word))
        )
    return found


def first_name(train: Sequence[Question], asked: Sequence[Question]) -> dict[str, str]:
    """The first speaker."""
    return {question.id: question.context.partition(":")[0] for question in asked}


def questions() -> dict[str, float]:
    """F1 of answers to the questions of `configs/bert_squad.py`."""
    train, asked = play_questions(20_000, seed=0, context_words=50)
    methods: dict[str, Callable[..., dict[str, str]]] = {
        "the most frequent place": most_frequent_place,
        "the best overlap": best_overlap,
        "the first speaker": first_name,
    }
    return {
        name: squad_scores(method(train, asked), asked)["f1"] for name, method in methods.items()
    }


# ----------------------------------------------------------------------------------- tags


def _around(sentence: Sequence[str], place: int) -> list[tuple[str, ...]]:
    """What tells a word and its neighbours, from most to least, and the neighbours alone."""
    padded = ["", *sentence, ""]
    before, word, after = padded[place : place + 3]
    return [
        ("both", before, word, after),
        ("before", before, word),
        ("after", word, after),
        ("word", word),
        ("neighbours", before, after),
    ]


def most_frequent_tags(
    train: TaggedSentences, sentences: Sequence[Sequence[str]], keys: slice
) -> list[list[str]]:
    """The most frequent tag of a word where it has the same neighbours, or some of them.

    Args:
        train: the sentences to count in.
        sentences: those to tag.
        keys: which entries of `_around` count; the first known one decides.
    """
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for sentence, tags in zip(*train, strict=True):
        for place, tag in enumerate(tags):
            for key in _around(sentence, place)[keys]:
                counts[key][tag] += 1
    best = {key: counter.most_common(1)[0][0] for key, counter in counts.items()}
    named = Counter(tag for tags in train.tags for tag in tags if tag != OUTSIDE)
    usual = named.most_common(1)[0][0]
    return [
        [
            next(
                (best[key] for key in _around(sentence, place)[keys] if key in best),
                usual if word.isidentifier() else OUTSIDE,
            )
            for place, word in enumerate(sentence)
        ]
        for sentence in sentences
    ]


def tags() -> dict[str, float]:
    """F1 of the names in Python that `configs/python_names.py` learns."""
    train, validation = python_names()
    ways = {"a list of words": slice(3, 4), "words with their neighbours": slice(0, 5)}
    return {
        name: 100.0
        * entity_scores(most_frequent_tags(train, validation.words, keys), validation.tags)["f1"]
        for name, keys in ways.items()
    }


# ------------------------------------------------------------------------------- purposes


def sentences_of(source: str) -> list[str]:
    """The sentences of a source without its name and parameters."""
    return re.split(r"(?<=[.!?])\s+", source.partition(": ")[2])


def central_sentence(source: str) -> str:
    """The sentence that shares most words with all sentences, for its length."""
    sentences = sentences_of(source)
    sets = [set(words(sentence)) for sentence in sentences]
    shared = [sum(len(one & other) for other in sets) / (1 + len(one)) for one in sets]
    return sentences[shared.index(max(shared))]


def name_of(source: str) -> str:
    """The words of the name of a function or class."""
    return " ".join(words(re.split(r"[(:]", source.removeprefix("class "))[0]))


def purpose_scores() -> dict[str, float]:
    """ROUGE-L on the held-out packages of `purposes`."""
    source, target = purposes()[1]
    methods = {
        "the first sentence": lambda text: sentences_of(text)[0],
        "the best sentence by overlap": central_sentence,
        "the words of the name": name_of,
    }
    return {
        name: rouge_scores([method(text) for text in source], target)["rougeL"]
        for name, method in methods.items()
    }


TASKS = {"questions": questions, "tags": tags, "purposes": purpose_scores}


def main() -> None:
    """Prints the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    for name, score in TASKS[parser.parse_args().task]().items():
        print(f"{name:32} {score:.1f}")


if __name__ == "__main__":
    main()
