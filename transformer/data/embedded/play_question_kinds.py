"""Kinds of questions on an excerpt of a play, each with a span of the excerpt as its answer."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.embedded.plays import Passage
from transformer.data.labels.squad import Answer

# The range of the number of words in a quotation.
SHORTEST, LONGEST = 5, 8
# The most words of a whole speech that is asked for.
_SPEECH_WORDS = 20
# Words that may stand between the names of people who enter or leave.
_BETWEEN = "and|of|the|a|an|two|three|other|others|certain|his|her|their|to"
_PERSON = rf"(?:[A-Z][\w'-]*|{_BETWEEN})\b"
_PEOPLE = rf"((?:{_PERSON},?\s)*{_PERSON})"
_ENTERING = re.compile(rf"\b(?:Enter|Re-enter),?\s{_PEOPLE}")
_LEAVING = re.compile(rf"\b(?:Exit|Exeunt),?\s{_PEOPLE}")
# "SCENE II. A room in the castle." The place ends before a full stop.
_PLACE = re.compile(r"\bSCENE [IVXLC]+\.\s+(\S.*?)\.?\s*\Z", re.DOTALL)


class Paragraph(NamedTuple):
    """A passage as a paragraph of a context.

    Attributes:
        kind: that of the passage.
        speaker: the speaker without colons; empty if it is no speech.
        text: `SPEAKER: lines` of a speech, the lines of others.
        quotable: the lines of a speech that have enough words for a quotation, split into words.
    """

    kind: str
    speaker: str
    text: str
    quotable: tuple[tuple[str, ...], ...]


class Asked(NamedTuple):
    """A question with its answer.

    Attributes:
        question: the text of the question.
        answer: the span of the context that answers it.
        key: what tells it from others of its kind on the same excerpt.
    """

    question: str
    answer: Answer
    key: str


class Excerpt:
    """Neighbouring paragraphs of a scene, and the context that they make together."""

    def __init__(self, paragraphs: Sequence[Paragraph]) -> None:
        self.paragraphs = paragraphs
        self.context = "\n\n".join(paragraph.text for paragraph in paragraphs)
        sizes = [len(paragraph.text) + 2 for paragraph in paragraphs]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])[:-1].tolist()

    def speeches(self) -> list[int]:
        """The places of the speeches among the paragraphs."""
        return [place for place, each in enumerate(self.paragraphs) if each.speaker]

    def speaker(self, place: int) -> Answer:
        """The name before a speech."""
        return Answer(self.paragraphs[place].speaker, self.starts[place])


Ask = Callable[[Excerpt, np.random.Generator], Asked | None]


def paragraph_of(passage: Passage) -> Paragraph:
    """A passage as a paragraph."""
    text = "\n".join(passage.lines)
    if passage.kind != "speech":
        return Paragraph(passage.kind, "", text, ())
    # One name of the plays has colons of its own.
    speaker = passage.speaker.replace(":", "")
    lines = (tuple(line.split()) for line in passage.lines if '"' not in line)
    quotable = tuple(words for words in lines if len(words) >= SHORTEST)
    return Paragraph("speech", speaker, f"{speaker}: {text}", quotable)


def quotation(paragraph: Paragraph, random: np.random.Generator) -> str:
    """5 to 8 words of one line of a speech that has such a line."""
    words = paragraph.quotable[int(random.integers(len(paragraph.quotable)))]
    length = int(random.integers(SHORTEST, min(LONGEST, len(words)) + 1))
    first = int(random.integers(len(words) - length + 1))
    return " ".join(words[first : first + length]).rstrip(",.;:?!-")


def times(part: str, text: str) -> int:
    """How often a part occurs in a text, ignoring case, including overlaps; at most 2."""
    part, text = part.lower(), text.lower()
    first = text.find(part)
    return 0 if first < 0 else 1 + (text.find(part, first + 1) >= 0)


def _who_says(excerpt: Excerpt, random: np.random.Generator) -> Asked | None:
    found = _quoted(excerpt, random, excerpt.speeches())
    if found is None:
        return None
    place, words = found
    return Asked(saying(words), excerpt.speaker(place), words)


def saying(words: str) -> str:
    """The question about a quotation."""
    return f'Who says "{words}"?'


def _who_speaks_next(excerpt: Excerpt, random: np.random.Generator) -> Asked | None:
    """The next speaker must stand in the excerpt."""
    speeches = excerpt.speeches()
    found = _quoted(excerpt, random, speeches[:-1])
    if found is None:
        return None
    place, words = found
    following = speeches[speeches.index(place) + 1]
    return Asked(f'Who speaks after "{words}"?', excerpt.speaker(following), words)


def _what_says(excerpt: Excerpt, random: np.random.Generator) -> Asked | None:
    """Only of people with one speech in the excerpt."""
    count = Counter(excerpt.paragraphs[place].speaker for place in excerpt.speeches())
    short = []
    for place in excerpt.speeches():
        _, speaker, text, _ = excerpt.paragraphs[place]
        said = text[len(speaker) + 2 :]
        if count[speaker] == 1 and 2 <= len(said.split()) <= _SPEECH_WORDS:
            short.append((speaker, Answer(said, excerpt.starts[place] + len(speaker) + 2)))
    if not short:
        return None
    speaker, answer = short[int(random.integers(len(short)))]
    return Asked(f"What does {speaker} say?", answer, speaker)


def _how_goes_on(excerpt: Excerpt, random: np.random.Generator) -> Asked | None:
    """The rest of a line after its first words."""
    lines = [
        (place, line)
        for place in excerpt.speeches()
        for line in excerpt.paragraphs[place].quotable
        if times(" ".join(line), excerpt.context) == 1
    ]
    if not lines:
        return None
    place, line = lines[int(random.integers(len(lines)))]
    whole, first = " ".join(line), int(random.integers(2, len(line) - 1))
    begun = " ".join(line[:first])
    start = excerpt.context.find(whole, excerpt.starts[place])
    if start < 0 or times(begun, excerpt.context) != 1:
        return None
    answer = Answer(whole[len(begun) + 1 :].rstrip(",.;:?!-"), start + len(begun) + 1)
    if not answer.text:
        return None
    return Asked(f'How does the line "{begun}" go on?', answer, begun)


def _in_directions(question: str, pattern: re.Pattern[str], kind: str) -> Ask:
    """A question that one direction, or the heading, answers: there is no choice."""

    def ask(excerpt: Excerpt, random: np.random.Generator) -> Asked | None:
        found = [
            Answer(match[1].rstrip(", "), excerpt.starts[place] + match.start(1))
            for place, each in enumerate(excerpt.paragraphs)
            if each.kind == kind
            for match in pattern.finditer(each.text)
            if re.search("[A-Z]", match[1])
        ]
        return Asked(question, found[0], "") if len(found) == 1 else None

    return ask


def _quoted(
    excerpt: Excerpt, random: np.random.Generator, places: Sequence[int]
) -> tuple[int, str] | None:
    """A speech and words of it that occur once in the excerpt."""
    # Evenly over the speakers first: otherwise the most frequent speaker is too good a guess.
    of: dict[str, list[int]] = {}
    for place in places:
        if excerpt.paragraphs[place].quotable:
            of.setdefault(excerpt.paragraphs[place].speaker, []).append(place)
    if not of:
        return None
    theirs = list(of.values())[int(random.integers(len(of)))]
    place = theirs[int(random.integers(len(theirs)))]
    words = quotation(excerpt.paragraphs[place], random)
    return (place, words) if times(words, excerpt.context) == 1 else None


class Kind(NamedTuple):
    """A kind of question.

    Attributes:
        name: a word for it, part of the ids of its questions.
        weight: how often it is asked, relative to the others.
        ask: a question on an excerpt; None if there is none.
        single: whether an excerpt has one such question at most, so that nothing is drawn.
    """

    name: str
    weight: float
    ask: Ask
    single: bool = False


KINDS = (
    Kind("says", 0.3, _who_says),
    Kind("next", 0.15, _who_speaks_next),
    Kind("speech", 0.15, _what_says),
    Kind("line", 0.15, _how_goes_on),
    Kind("enters", 0.1, _in_directions("Who enters?", _ENTERING, "direction"), single=True),
    Kind("leaves", 0.1, _in_directions("Who leaves?", _LEAVING, "direction"), single=True),
    Kind("place", 0.05, _in_directions("Where is it?", _PLACE, "heading"), single=True),
)


def kinds_of(questions: Sequence[str]) -> Iterator[str]:
    """The kind of each question, by its form: its words outside of quotations and names."""
    for question in questions:
        text = re.sub(r'".*"', '"..."', question, flags=re.DOTALL)
        yield re.sub(r"^What does .* say\?$", "What does ... say?", text, flags=re.DOTALL)
