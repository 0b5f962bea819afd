"""Questions on Shakespeare's plays: who says a line.

They have the form of SQuAD, to train and test question answering without a download: the context
is a run of speeches, and the answer is a name in it. A model has to find the quotation and go back
to the name before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.embedded.plays import Passage, Play, plays
from transformer.data.labels.squad import Answer, Question
from transformer.errors import ConfigError

# The range of the number of words in a quotation.
_SHORTEST, _LONGEST = 5, 8
_SPEAKERS = 3
# After this many draws in a row without a new question, we assume that there are no more.
_TRIES = 3000


class _Scene(NamedTuple):
    """The text between two headings.

    Attributes:
        name: the name of the play, and the number of the scene.
        paragraphs: text of each passage.
        speakers: the speakers of each passage; empty for a direction.
        quotable: the lines of each passage that have enough words, split into words.
    """

    name: str
    paragraphs: list[str]
    speakers: list[str]
    quotable: list[list[list[str]]]


class _Run(NamedTuple):
    """Neighbouring passages of a scene.

    Attributes:
        play: the number of the play.
        scene: the number of the scene in the play.
        first: the number of the first passage.
        end: one more than the number of the last passage.
        asked: for each speaker, the numbers of the passages that can be asked about.
    """

    play: int
    scene: int
    first: int
    end: int
    asked: list[list[int]]


def play_questions(
    count: int, *, seed: int, context_words: int = 120, unanswerable: float = 0.0
) -> tuple[list[Question], list[Question]]:
    """Questions from the plays to train on, and from the held-out ones.

    A context is a run of whole passages of one scene (speeches and stage directions, one paragraph
    each) with at least three speakers. A quotation is 5 to 8 words of one line that occur once in
    the context, ignoring case. Every speaker of the context is equally likely, and so is each of
    their speeches with such a line. The quotation of a question without an answer is from another
    scene of the same play and does not occur in the context.

    A larger `count` gives the same questions and more. An id names the play, the passages and the
    words, so that it means the same question everywhere.

    Args:
        count: the number of questions; a tenth of them is for validation.
        seed: the seed of the choice.
        context_words: the maximum number of words of a context, including names; every context has
            at least half as many.
        unanswerable: the fraction of questions without an answer, the same in both parts.

    Returns:
        Questions to train on and questions to validate on.

    Raises:
        ConfigError: if a number is out of range, or there are fewer questions than `count`.
        MissingDependencyError: if the plays are not installed.
    """
    if count < 2:
        raise ConfigError(f"count is {count}: at least 2 questions, one for each part.")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: at least 0.")
    if not 0.0 <= unanswerable <= 1.0:
        raise ConfigError(f"unanswerable is {unanswerable}: 0 or more, at most 1.")
    validation = max(1, count // 10)
    first, second = (np.random.default_rng([seed, part]) for part in range(2))
    train, held_out = plays()
    return (
        _questions(train, count - validation, first, context_words, unanswerable),
        _questions(held_out, validation, second, context_words, unanswerable),
    )


def _questions(
    part: Sequence[Play],
    count: int,
    random: np.random.Generator,
    context_words: int,
    unanswerable: float,
) -> list[Question]:
    scenes = [_scenes(play) for play in part]
    runs = [
        run
        for play, of_play in enumerate(scenes)
        for number, scene in enumerate(of_play)
        for run in _runs(scene, play, number, context_words)
    ]
    if not runs:
        raise ConfigError(
            f"context_words is {context_words}: no context of that size has {_SPEAKERS} speakers."
        )
    found: dict[str, Question] = {}
    failed = 0
    while len(found) < count:
        if failed == _TRIES:
            raise ConfigError(
                f"count is too high: it asks for {count:,} questions in one part, and only "
                f"{len(found):,} were found: lower it, or raise context_words."
            )
        # Questions without an answer are spread evenly among the others.
        answered = int((len(found) + 1) * unanswerable) == int(len(found) * unanswerable)
        question = _draw(scenes, runs[int(random.integers(len(runs)))], answered, random)
        if question is None or question.id in found:
            failed += 1
        else:
            found[question.id], failed = question, 0
    return list(found.values())


def _scenes(play: Play) -> list[_Scene]:
    """The scenes of a play that have speeches."""
    scenes: list[list[Passage]] = [[]]
    for passage in play.passages():
        if passage.kind == "heading":
            scenes.append([])
        else:
            scenes[-1].append(passage)
    spoken = [scene for scene in scenes if any(passage.speaker for passage in scene)]
    return [
        _Scene(
            f"{play.name}-{number}",
            [_paragraph(passage) for passage in scene],
            [_speaker(passage) for passage in scene],
            [_quotable(passage) for passage in scene],
        )
        for number, scene in enumerate(spoken, 1)
    ]


def _speaker(passage: Passage) -> str:
    # One name of the plays has colons of its own.
    return passage.speaker.replace(":", "")


def _paragraph(passage: Passage) -> str:
    text = "\n".join(passage.lines)
    return f"{_speaker(passage)}: {text}" if passage.kind == "speech" else text


def _quotable(passage: Passage) -> list[list[str]]:
    """The lines of a speech that have enough words and no quotation marks."""
    if passage.kind != "speech":
        return []
    lines = (line.split() for line in passage.lines if '"' not in line)
    return [words for words in lines if len(words) >= _SHORTEST]


def _runs(scene: _Scene, play: int, number: int, context_words: int) -> list[_Run]:
    """For each passage the longest run that begins there and is not too long, if it is suitable."""
    words = [len(paragraph.split()) for paragraph in scene.paragraphs]
    sums = np.concatenate([[0], np.cumsum(words)])
    # The place of the last sum within the limit.
    ends = np.searchsorted(sums, sums[:-1] + context_words, side="right") - 1
    runs = []
    for first, end in enumerate(ends.tolist()):
        asked: dict[str, list[int]] = {}
        for passage in range(first, end):
            if scene.quotable[passage]:
                asked.setdefault(scene.speakers[passage], []).append(passage)
        speakers = set(scene.speakers[first:end]) - {""}
        long = 2 * (sums[end] - sums[first]) >= context_words
        if long and asked and len(speakers) >= _SPEAKERS:
            runs.append(_Run(play, number, first, end, list(asked.values())))
    return runs


def _draw(
    scenes: Sequence[Sequence[_Scene]], run: _Run, answered: bool, random: np.random.Generator
) -> Question | None:
    """A question on a run; None if the drawn words are unsuitable."""
    scene = scenes[run.play][run.scene]
    if answered:
        # Evenly over the speakers first: otherwise the most frequent speaker is too good a guess.
        speeches = run.asked[int(random.integers(len(run.asked)))]
        quoted, passage = scene, speeches[int(random.integers(len(speeches)))]
    else:
        quoted = scenes[run.play][int(random.integers(len(scenes[run.play])))]
        passage = int(random.integers(len(quoted.paragraphs)))
        if quoted is scene or not quoted.quotable[passage]:
            return None
    lines = quoted.quotable[passage]
    line = int(random.integers(len(lines)))
    words = lines[line]
    length = int(random.integers(_SHORTEST, min(_LONGEST, len(words)) + 1))
    first = int(random.integers(len(words) - length + 1))
    quotation = " ".join(words[first : first + length]).rstrip(",.;:?!-")

    context = "\n\n".join(scene.paragraphs[run.first : run.end])
    if _times(quotation.lower(), context.lower()) != answered:
        return None
    name = f"{scene.name}-{run.first}-{run.end}-{quoted.name}-{passage}-{line}-{first}-{length}"
    start = len("\n\n".join([*scene.paragraphs[run.first : passage], ""]))
    answers = (Answer(scene.speakers[passage], start),) if answered else ()
    return Question(name, f'Who says the line that contains "{quotation}"?', context, answers)


def _times(part: str, text: str) -> int:
    """How often a part occurs in a text, including overlaps; at most 2."""
    first = text.find(part)
    return 0 if first < 0 else 1 + (text.find(part, first + 1) >= 0)
