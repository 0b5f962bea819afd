import copy
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.labels.squad import Answer, Question, read_squad, write_squad
from transformer.errors import DataError

CONTEXT = "Zoë lived in Rome, and Zoë died in Rome."
ANSWERED = {
    "id": "one",
    "question": "Where did Zoë die?",
    "answers": [
        {"text": "Rome", "answer_start": 35},
        {"text": "in Rome", "answer_start": 32},
    ],
}
# As in version 2: what somebody might take for an answer is not one.
IMPOSSIBLE = {
    "id": "two",
    "question": "Where was she born?",
    "is_impossible": True,
    "answers": [],
    "plausible_answers": [{"text": "Rome", "answer_start": 0}],
}
QUESTIONS = [
    Question("one", "Where did Zoë die?", CONTEXT, (Answer("Rome", 35), Answer("in Rome", 32))),
    Question("two", "Where was she born?", CONTEXT, ()),
]


def content(*entries):
    entries = copy.deepcopy(entries or (ANSWERED, IMPOSSIBLE))
    return {"data": [{"title": "Zoë", "paragraphs": [{"context": CONTEXT, "qas": [*entries]}]}]}


@pytest.fixture
def write(tmp_path):
    def write(content, name="questions.json"):
        path = tmp_path / name
        if not isinstance(content, bytes):
            text = content if isinstance(content, str) else json.dumps(content)
            content = text.encode()
        path.write_bytes(content)
        return path

    return write


def refused(path):
    with pytest.raises(DataError) as error:
        read_squad(path)
    message = str(error.value)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_both_versions_are_read(write):
    assert read_squad(write(content())) == QUESTIONS
    assert read_squad(write(content(ANSWERED))) == QUESTIONS[:1]
    assert read_squad(write(content({**ANSWERED, "is_impossible": False}))) == QUESTIONS[:1]


def test_gzip(write):
    assert read_squad(write(gzip.compress(json.dumps(content()).encode()))) == QUESTIONS


def test_an_impossible_question_has_no_answers(write):
    with_answers = {**ANSWERED, "is_impossible": True}
    bare = {key: IMPOSSIBLE[key] for key in ("id", "question", "is_impossible")}
    questions = read_squad(write(content(with_answers, bare)))
    assert [question.answers for question in questions] == [(), ()]


def test_the_order_of_the_file_is_kept(write):
    entries = [{**ANSWERED, "id": name} for name in "zax"]
    first, second = content(*entries[:2]), content(entries[2])
    first["data"] += second["data"]
    assert [question.id for question in read_squad(write(first))] == ["z", "a", "x"]


texts = (
    st.text(min_size=1).filter(str.strip).filter(lambda text: text.isprintable() or "\n" in text)
)


@given(st.data(), st.lists(texts, min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=1))
def test_round_trip(tmp_path_factory, data, contexts, chosen):
    questions = []
    for index, number in enumerate(chosen):
        context = contexts[number % len(contexts)]
        start = data.draw(st.integers(0, len(context) - 1))
        text = context[start : data.draw(st.integers(start + 1, len(context)))]
        answers = (Answer(text, start),) * (bool(text.strip()) * data.draw(st.integers(0, 2)))
        questions.append(Question(str(index), data.draw(texts), context, answers))
    path = tmp_path_factory.getbasetemp() / "round trip.json"
    write_squad(questions, path)
    assert read_squad(path) == questions
    assert json.loads(path.read_text("utf-8"))["version"] == "v2.0"


def test_questions_on_one_context_share_a_paragraph(tmp_path):
    other = Question("three", "Who?", "Someone.", (Answer("Someone", 0),))
    write_squad([*QUESTIONS, other], tmp_path / "file.json")
    (article,) = json.loads((tmp_path / "file.json").read_text("utf-8"))["data"]
    assert [len(paragraph["qas"]) for paragraph in article["paragraphs"]] == [2, 1]
    # Readable as it stands, and with the answers counted in characters.
    assert "Zoë" in (tmp_path / "file.json").read_text("utf-8")


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*cannot be written: No such file"):
        write_squad(QUESTIONS, tmp_path / "nowhere" / "file.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [}', "is not JSON: Expecting value in line 1, column 11"),
        ("[" * 100_000, "brackets within each other"),
        ("[]", "holds a list: an object with the key 'data'"),
        ("3", "holds a whole number"),
        ("null", "holds null"),
        ("{}", "lacks 'data': a list was expected"),
        ('{"data": {}}', "'data' is an object: a list"),
        ('{"data": []}', "holds no questions"),
        ('{"data": [{"paragraphs": []}]}', "holds no questions"),
        ('{"data": [[]]}', ", data[0] is a list: an object"),
        ('{"data": [{}]}', ", data[0] lacks 'paragraphs'"),
        ('{"data": [{"paragraphs": [true]}]}', ", data[0], paragraphs[0] is true: an object"),
        ('{"data": [{"paragraphs": [{}]}]}', ", data[0], paragraphs[0] lacks 'context'"),
        ('{"data": [{"paragraphs": [{"context": "a"}]}]}', "paragraphs[0] lacks 'qas'"),
        ('{"data": [{"paragraphs": [{"context": " "}]}]}', "'context' is empty"),
        ('{"data": [{"paragraphs": [{"context": 3.5}]}]}', "'context' is a number: a string"),
        (
            '{"data": [{"paragraphs": [{"context": "a\\ud800"}]}]}',
            "half of a surrogate pair as character 1",
        ),
        ('{"data": [{"paragraphs": [{"context": "a", "qas": [0]}]}]}', "qas[0] is a whole number"),
    ],
)
def test_files_of_another_shape(write, text, message):
    assert message in refused(write(text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, ", qas[1]: 'id' is null: a string"),
        ({"id": 7}, ", qas[1]: 'id' is a whole number: a string"),
        ({"id": "two"}, "two questions have the id 'two'"),
        ({"question": "\t"}, ": question 'one': 'question' is empty"),
        ({"question": ["a"]}, ": question 'one': 'question' is a list"),
        ({"answers": []}, ": question 'one' has no answers: mark one that the context does not"),
        ({"answers": "Rome"}, ": question 'one': 'answers' is a string: a list"),
        ({"answers": ["Rome"]}, ": question 'one', answers[0] is a string: an object"),
        ({"answers": [{"answer_start": 0}]}, "lacks 'text'"),
        ({"answers": [{"text": "Rome"}]}, "lacks 'answer_start': a whole number"),
        ({"answers": [{"text": "", "answer_start": 0}]}, "'text' is empty"),
        ({"answers": [{"text": "Z", "answer_start": "0"}]}, "'answer_start' is a string: a whole"),
        ({"answers": [{"text": "Z", "answer_start": False}]}, "'answer_start' is false"),
        (
            {"answers": [{"text": "Z", "answer_start": 0.0}]},
            "'answer_start' is a number: a whole number",
        ),
        ({"is_impossible": "false"}, "'is_impossible' is a string: true or false"),
        ({"is_impossible": 1}, "'is_impossible' is a whole number: true or false"),
    ],
)
def test_faults_of_a_question(write, change, message):
    assert message in refused(write(content(IMPOSSIBLE, {**ANSWERED, **change})))


@pytest.mark.parametrize("key", ["id", "question", "answers"])
def test_missing_keys(write, key):
    entry = {name: value for name, value in ANSWERED.items() if name != key}
    assert f"lacks '{key}'" in refused(write(content(entry)))


@pytest.mark.parametrize(
    ("text", "start", "said"),
    [
        ("Rome", 34, ["'answer_start' is 34", "has ' Rom', not 'Rome'", "at 35, the nearest"]),
        ("Rome", 14, ["'answer_start' is 14", "'ome,'", "at 13, the nearest"]),
        ("rome", 13, ["'Rome', not 'rome'", "found nowhere"]),
        ("Zoe", 0, ["'Zoë', not 'Zoe'", "found nowhere"]),
        # As if counted in bytes of UTF-8.
        ("Rome", 37, ["'Rome' does not fit in: the context has 40 characters", "at 35"]),
        ("Rome", -5, ["'answer_start' is -5", "does not fit in", "at 13"]),
        ("Zoë", -1, ["does not fit in", "at 0"]),
        ("Rome", 10**30, ["does not fit in", "at 35"]),
        ("R" * 90, 1, ["not fit in", repr("R" * 57 + "...")]),
    ],
)
def test_answers_out_of_place_are_not_repaired(write, text, start, said):
    entry = {**ANSWERED, "answers": [{"text": text, "answer_start": start}]}
    message = refused(write(content(entry)))
    for part in ("question 'one'", *said):
        assert part in message


def test_unusable_files(write, tmp_path):
    assert "does not exist" in refused(tmp_path / "nowhere.json")
    assert "not UTF-8" in refused(write(b'{"data": "\xff"}'))
    assert "is empty" in refused(write(""))
