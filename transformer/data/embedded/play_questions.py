"""Questions on Shakespeare's plays, made by rule, whose answers are spans of an excerpt.

They have the form of SQuAD, to train and test question answering without a download. There are
several kinds, from who says a line to where a scene takes place; see
`data.embedded.play_question_kinds`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.embedded.play_question_kinds import (
    KINDS,
    Excerpt,
    Kind,
    Paragraph,
    paragraph_of,
    quotation,
    saying,
    times,
)
from transformer.data.embedded.plays import Play, plays
from transformer.data.labels.squad import Question
from transformer.errors import ConfigError

_SPEAKERS = 2
# After this many draws in a row without a new question, we assume that there are no more.
_TRIES = 3000


class _Scene(NamedTuple):
    """A heading and the passages up to the next one.

    Attributes:
        name: the name of the play, and the number of the scene.
        paragraphs: the heading, if there is one, and the passages.
    """

    name: str
    paragraphs: list[Paragraph]


class _Run(NamedTuple):
    """Neighbouring paragraphs of a scene.

    Attributes:
        play: the number of the play.
        scene: the number of the scene in the play.
        first: the number of the first paragraph.
        end: one more than the number of the last paragraph.
    """

    play: int
    scene: int
    first: int
    end: int


def play_questions(
    count: int, *, seed: int, context_words: int = 120, unanswerable: float = 0.0
) -> tuple[list[Question], list[Question]]:
    """Questions from the plays to train on, and from the held-out ones.

    A context is a run of whole passages of one scene (heading, speeches and stage directions, one
    paragraph each) with at least two speakers. Each kind of question is drawn with its weight; one
    that has no further questions is left out from then on. The question without an answer is who
    says words that are from another scene of the same play and do not occur in the context.

    A larger `count` gives the same questions and more. An id names the play, the paragraphs, the
    kind and what is asked about, so that it means the same question everywhere.

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
        _Drawing(train, context_words, first).questions(count - validation, unanswerable),
        _Drawing(held_out, context_words, second).questions(validation, unanswerable),
    )


class _Drawing:
    """Draws questions from some plays."""

    def __init__(
        self, part: Sequence[Play], context_words: int, random: np.random.Generator
    ) -> None:
        self.random = random
        self.scenes = [_scenes(play) for play in part]
        self.runs = [
            run
            for play, of_play in enumerate(self.scenes)
            for number, scene in enumerate(of_play)
            for run in _runs(scene, play, number, context_words)
        ]
        if not self.runs:
            raise ConfigError(
                f"context_words is {context_words}: no context of that size has {_SPEAKERS} "
                f"speakers."
            )
        self.kinds = list(KINDS)
        # Most runs have no question of a kind that leaves no choice: so all are found at once.
        self.single = {kind: self._all_of(kind) for kind in KINDS if kind.single}

    def questions(self, count: int, unanswerable: float) -> list[Question]:
        """So many different questions."""
        found: dict[str, Question] = {}
        while len(found) < count:
            # Questions without an answer are spread evenly among the others.
            answered = int((len(found) + 1) * unanswerable) == int(len(found) * unanswerable)
            question = self._new(found, answered)
            if question is None:
                raise ConfigError(
                    f"count is too high: it asks for {count:,} questions in one part, and only "
                    f"{len(found):,} were found: lower it, or raise context_words."
                )
            found[question.id] = question
        return list(found.values())

    def _new(self, known: dict[str, Question], answered: bool) -> Question | None:
        """A question that is not known; None if there are no more."""
        while self.kinds:
            weights = np.array([kind.weight for kind in self.kinds])
            kind = self.kinds[int(self.random.choice(len(weights), p=weights / weights.sum()))]
            if answered and kind.single:
                if self.single[kind]:
                    return self.single[kind].pop()
            else:
                for _ in range(_TRIES):
                    question = self._answered(kind) if answered else self._unanswered()
                    if question is not None and question.id not in known:
                        return question
                if not answered:
                    return None
            self.kinds.remove(kind)
        return None

    def _all_of(self, kind: Kind) -> list[Question]:
        """All questions of a kind that leaves no choice, in random order."""
        found = [self._ask(kind, run) for run in self.runs]
        order = self.random.permutation(len(found))
        return [question for place in order if (question := found[place]) is not None]

    def _answered(self, kind: Kind) -> Question | None:
        """A question of a kind on a drawn run; None if it has none."""
        return self._ask(kind, self._draw(self.runs))

    def _ask(self, kind: Kind, run: _Run) -> Question | None:
        excerpt = self._excerpt(run)
        asked = kind.ask(excerpt, self.random)
        if asked is None:
            return None
        name = f"{self._name(run)}-{kind.name}-{asked.key}"
        return Question(name, asked.question, excerpt.context, (asked.answer,))

    def _unanswered(self) -> Question | None:
        """Who says words of another scene? None if the drawn ones are unsuitable."""
        run = self._draw(self.runs)
        of_play = self.scenes[run.play]
        other = int(self.random.integers(len(of_play)))
        paragraphs = of_play[other].paragraphs
        paragraph = paragraphs[int(self.random.integers(len(paragraphs)))]
        if other == run.scene or not paragraph.quotable:
            return None
        words, context = quotation(paragraph, self.random), self._excerpt(run).context
        if times(words, context):
            return None
        return Question(f"{self._name(run)}-nobody-{words}", saying(words), context, ())

    def _draw(self, runs: list[_Run]) -> _Run:
        return runs[int(self.random.integers(len(runs)))]

    def _excerpt(self, run: _Run) -> Excerpt:
        return Excerpt(self.scenes[run.play][run.scene].paragraphs[run.first : run.end])

    def _name(self, run: _Run) -> str:
        return f"{self.scenes[run.play][run.scene].name}-{run.first}-{run.end}"


def _scenes(play: Play) -> list[_Scene]:
    """The scenes of a play that have speeches."""
    scenes: list[list[Paragraph]] = [[]]
    for passage in play.passages():
        paragraph = paragraph_of(passage)
        if paragraph.kind == "heading":
            scenes.append([])
        scenes[-1].append(paragraph)
    spoken = [scene for scene in scenes if any(paragraph.speaker for paragraph in scene)]
    return [_Scene(f"{play.name}-{number}", scene) for number, scene in enumerate(spoken, 1)]


def _runs(scene: _Scene, play: int, number: int, context_words: int) -> list[_Run]:
    """For each passage the longest run that begins there and is not too long, if it is suitable."""
    words = [len(paragraph.text.split()) for paragraph in scene.paragraphs]
    sums = np.concatenate([[0], np.cumsum(words)])
    # The place of the last sum within the limit.
    ends = np.searchsorted(sums, sums[:-1] + context_words, side="right") - 1
    runs = []
    for first, end in enumerate(ends.tolist()):
        speakers = {paragraph.speaker for paragraph in scene.paragraphs[first:end]} - {""}
        long = 2 * (sums[end] - sums[first]) >= context_words
        if long and len(speakers) >= _SPEAKERS:
            runs.append(_Run(play, number, first, end))
    return runs
