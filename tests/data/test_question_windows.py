import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenizers import make_encoder_tokenizer
from transformer.data.labels.squad import Answer, Question
from transformer.data.labels.windows import Windows, best_answers, make_windows
from transformer.data.tokenizers.byte_pieces import train_byte_pieces
from transformer.data.tokenizers.word_pieces import SPECIAL_TOKENS
from transformer.errors import ConfigError, DataError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# The parts of Hangul syllables are pieces that share a character.
VOCABULARY = [*SPECIAL_TOKENS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
VOCABULARY += ["the", "##ing", "中", "国", "ᄒ", "##ᅡ", "##ᆫ", *"1.,()?", "👍"]
# Also characters that no vocabulary has, that are dropped, or that are several characters long.
CHARACTERS = [
    *"abeingth",
    "É",
    "ö",
    "ñ",
    "e\u0301",
    "\u0301",
    "ﬁ",
    "İ",
    "ß",
    "한",
    "中",
    "国",
    "👍",
]
CHARACTERS += ["❤\ufe0f", "👩\u200d💻", "\u200b", "\u00ad", "\ufeff", "\0", "1", ".", "(", "—"]
CHARACTERS += [*"    \t\n\r", "\u00a0", "\u3000", "\u2028", "\U00010330", "ம்", "กิ"]

CONTEXTS = st.one_of(
    st.lists(st.sampled_from(CHARACTERS), min_size=1, max_size=40).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY), "utf-8")
    return make_encoder_tokenizer(str(path), [], vocab_size=0, lowercase=True)


@pytest.fixture(scope="module", params=["words", "bytes"])
def any_tokenizer(request, tokenizer):
    """Also one of bytes, some of whose pieces are parts of characters or end in another one."""
    if request.param == "words":
        return tokenizer
    return train_byte_pieces([" ".join(CHARACTERS), "".join(CHARACTERS), "the thing\n\n"] * 3, 350)


def ask(context, answer="", start=None, question="the?", name="name"):
    start = context.index(answer) if start is None else start
    return Question(name, question, context, (Answer(answer, start),) if answer else ())


def windows_of(tokenizer, *questions, max_length=10, stride=2, max_question_length=2):
    return make_windows(
        tokenizer,
        questions,
        max_length=max_length,
        stride=stride,
        max_question_length=max_question_length,
    )


def true_logits(windows):
    """1 at the first and the last token of each answer, where the window holds it."""
    logits = np.zeros((2, *windows.tokens.shape), np.float32)
    (held,) = np.nonzero(windows.starts)
    logits[0, held, windows.starts[held]] = 1
    logits[1, held, windows.ends[held]] = 1
    return logits


def best(windows, logits, *questions, max_answer_length=100, n_best=3):
    return best_answers(
        windows, *logits, questions, max_answer_length=max_answer_length, n_best=n_best
    )


def texts(tokenizer, windows):
    return [
        " ".join(tokenizer.tokens(row[:length]))
        for row, length in zip(windows.tokens, windows.lengths, strict=True)
    ]


def test_what_windows_look_like(tokenizer):
    question = ask("Bad cé (ding)", "é (ding")
    windows = windows_of(tokenizer, question)
    assert texts(tokenizer, windows) == [
        "[CLS] the ? [SEP] b ##a ##d c ##e [SEP]",
        "[CLS] the ? [SEP] ##d c ##e ( d [SEP]",
        "[CLS] the ? [SEP] ##e ( d ##ing ) [SEP]",
    ]
    assert windows.tokens.shape == (3, 10)
    assert windows.lengths.tolist() == [10] * 3
    assert windows.token_types.tolist() == [[0] * 4 + [1] * 6] * 3
    assert windows.starts.tolist() == [0, 0, 4]
    assert windows.ends.tolist() == [0, 0, 7]
    assert windows.questions.tolist() == [0] * 3
    assert windows.first_chars[0].tolist() == [-1] * 4 + [0, 1, 2, 4, 5] + [-1]
    assert windows.last_chars[2].tolist() == [-1] * 4 + [6, 8, 9, 12, 13] + [-1]
    # Of two windows that show as much of the surroundings it is the first.
    assert windows.best_context[:, 4:9].astype(int).tolist() == [
        [1, 1, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]


def test_padding_and_types(tokenizer):
    windows = windows_of(tokenizer, ask("a b", "b"), ask("c", question="the the the the"))
    assert texts(tokenizer, windows) == [
        "[CLS] the ? [SEP] a b [SEP]",
        "[CLS] the the [SEP] c [SEP]",
    ]
    assert windows.token_types[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert windows.lengths.tolist() == [7, 6]
    assert (windows.tokens[1, 6:] == tokenizer.pad).all()
    assert windows.questions.tolist() == [0, 1]
    assert windows.starts.tolist() == [5, 0]
    kinds = {field: getattr(windows, field).dtype for field in Windows._fields}
    assert kinds.pop("token_types") == np.int8
    assert kinds.pop("best_context") == kinds.pop("cut") == np.bool_
    assert windows.cut.tolist() == [False, True]
    assert set(kinds.values()) == {np.dtype(np.int32)}


def test_a_short_question_leaves_more_room(tokenizer):
    short, long = ask("a b c d e f", question="a"), ask("a b c d e f", question="a a a")
    windows = windows_of(tokenizer, short, long, max_length=10, stride=1, max_question_length=3)
    assert windows.questions.tolist() == [0, 1, 1, 1]


def test_a_context_without_pieces(tokenizer):
    questions = [ask("\u200b "), ask("a", "a"), ask("\0", "\0")]
    windows = windows_of(tokenizer, *questions)
    assert texts(tokenizer, windows)[::2] == ["[CLS] the ? [SEP] [SEP]"] * 2
    assert windows.starts.tolist() == [0, 4, 0]
    assert not windows.best_context[::2].any()
    logits = np.ones((2, *windows.tokens.shape))
    predictions = best(windows, logits, *questions)
    assert [len(prediction.answers) for prediction in predictions] == [0, 1, 0]
    assert [prediction.null_score for prediction in predictions] == [2, 2, 2]


def test_no_questions(tokenizer):
    windows = windows_of(tokenizer)
    assert windows.tokens.shape == (0, 10)
    assert best(windows, np.zeros((2, 0, 10))) == []


def test_an_answer_within_a_piece_gets_the_piece(tokenizer):
    question = ask("the ding", "in")
    windows = windows_of(tokenizer, question)
    ((found, *_), _) = best(windows, true_logits(windows), question)[0]
    assert found == ("ing", 5, 8, 2)


@pytest.mark.parametrize(
    ("context", "answer", "text"),
    [
        ("a cafe\u0301 b", "cafe\u0301", "cafe\u0301"),
        ("a cafe\u0301 b", "cafe", "cafe\u0301"),
        ("a e\u0301\u0327a", "e", "e\u0301\u0327"),
        ("a ❤\ufe0f b", "❤\ufe0f", "❤\ufe0f"),
        ("a CAFÉ b", "CAFÉ", "CAFÉ"),
        ("a 한b", "한", "한"),
        ("a\u200b  b\t\tc", "b\t\tc", "b\t\tc"),
        ("a 中国b", "中", "中"),
        ("👍👍", "👍👍", "👍👍"),
        ("x  b \n", " b \n", "b"),
    ],
)
def test_answers_keep_their_characters(tokenizer, context, answer, text):
    question = ask(context, answer)
    windows = windows_of(tokenizer, question, max_length=30)
    found = best(windows, true_logits(windows), question)[0].answers[0]
    assert found.text == text
    assert found.score == 2


def test_an_accent_that_is_a_piece_is_left_alone(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*VOCABULARY, "##\u0301"]), "utf-8")
    cased = make_encoder_tokenizer(str(path), [], vocab_size=0, lowercase=False)
    windows = windows_of(cased, ask("e\u0301a"))
    assert windows.last_chars[0, 4:7].tolist() == [1, 2, 3]


def test_an_answer_without_pieces_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"question 'name'.*no word piece of its answer '\\u200b'"):
        windows_of(tokenizer, ask("a \u200b b", "\u200b"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_length": 5},
            r"max_length is 5, max_question_length is 2 .* at least .*question.* \+ 4",
        ),
        ({"max_question_length": 0}, "max_question_length is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"stride": 6}, "stride is 6: .*room for 5 of the context.*At most 5"),
    ],
)
def test_lengths_that_cannot_be(tokenizer, options, message):
    with pytest.raises(ConfigError, match=message):
        windows_of(tokenizer, ask("a"), **options)
    assert len(windows_of(tokenizer, ask("a"), max_length=6, stride=1).tokens) == 1
    assert len(windows_of(tokenizer, ask("a b c d e f"), stride=5).tokens) == 2


@given(
    CONTEXTS,
    st.data(),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from(["a", "a the?", "한"]),
)
def test_answers_come_back(any_tokenizer, context, data, max_question_length, stride, asked):
    tokenizer = any_tokenizer
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    room = data.draw(st.integers(stride, 12))
    question = Question("name", asked, context, (Answer(context[start:end], start),))
    options = {
        "max_length": max_question_length + 2 + tokenizer.separators + room,
        "stride": stride,
        "max_question_length": max_question_length,
    }
    try:
        windows = windows_of(tokenizer, question, **options)
    except DataError:
        whole = windows_of(tokenizer, ask(context), max_length=500)
        assert not ((whole.first_chars < end) & (whole.last_chars > start)).any()
        return

    in_context = windows.first_chars >= 0
    assert (windows.last_chars > windows.first_chars)[in_context].all()
    assert (windows.last_chars[~in_context] == -1).all()
    # The windows show the same pieces as one that is long enough, and each piece is best in one.
    whole = windows_of(tokenizer, question, **{**options, "max_length": 500})
    (held,) = np.nonzero(whole.first_chars[0] >= 0)
    before = 1 + len(tokenizer.pieces([asked])[0].ids[:max_question_length]) + tokenizer.separators
    owned = np.zeros(len(held), int)
    for row in range(len(windows.tokens)):
        (columns,) = np.nonzero(in_context[row])
        pieces = row * stride + np.arange(len(columns))
        assert (columns == before + np.arange(len(columns))).all()
        assert (windows.tokens[row, columns] == whole.tokens[0, held[pieces]]).all()
        assert (windows.first_chars[row, columns] == whole.first_chars[0, held[pieces]]).all()
        assert (windows.last_chars[row, columns] == whole.last_chars[0, held[pieces]]).all()
        owned[pieces] += windows.best_context[row, columns]
    assert (owned == 1).all()
    assert not windows.best_context[~in_context].any()

    # The pieces of the answer are those that share a character with it.
    firsts, lasts = whole.first_chars[0, held], whole.last_chars[0, held]
    (answer,) = np.nonzero((firsts < end) & (lasts > start))
    if not len(answer):
        assert not len(held)
        return
    assert whole.starts[0] == held[answer[0]]
    assert whole.ends[0] == held[answer[-1]]
    (prediction,) = best(whole, true_logits(whole), question)
    found = prediction.answers[0]
    assert found.score == 2
    assert (found.start, found.end) == (firsts[answer[0]], lasts[answer[-1]])
    # A piece of bytes may end within one character and begin within another.
    whole_pieces = not any(((firsts < place) & (lasts > place)).any() for place in (start, end))
    if start in firsts and end in lasts and whole_pieces:
        assert found.text == context[start:end]

    # Also from several windows, if the answer is at most half as long as their overlap.
    logits = true_logits(windows)
    (prediction,) = best(windows, logits, question)
    for each in prediction.answers:
        assert each.text == context[each.start : each.end]
    if len(windows.tokens) == 1 or len(answer) <= (room - stride) // 2:
        assert prediction.answers[0] == found


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_best_context_is_that_of_the_published_code(tokenizer, size, room, data):
    check_best_context(tokenizer, size, room, data.draw(st.integers(1, room)))


def test_long_windows_are_a_little_better(tokenizer):
    check_best_context(tokenizer, size=310, room=300, stride=150)


def check_best_context(tokenizer, size, room, stride):
    windows = windows_of(tokenizer, ask(" ".join("a" * size)), max_length=room + 5, stride=stride)
    begins = stride * np.arange(len(windows.tokens))
    sizes = windows.lengths - 5
    assert begins[-1] + sizes[-1] == size
    assert len(begins) == 1 or begins[-2] + sizes[-2] < size
    for piece in range(size):
        scores = [
            min(piece - begin, begin + length - 1 - piece) + 0.01 * length
            if begin <= piece < begin + length
            else -1
            for begin, length in zip(begins, sizes, strict=True)
        ]
        expected = int(np.argmax(scores))
        for window, begin in enumerate(begins):
            if 0 <= piece - begin < sizes[window]:
                assert windows.best_context[window, 4 + piece - begin] == (window == expected)


def by_hand(windows, logits, question, index, max_answer_length, n_best):
    """All answers of one question, the best first."""
    found = []
    for row in np.nonzero(windows.questions == index)[0]:
        for start in np.nonzero(windows.best_context[row])[0]:
            for end in range(start, min(start + max_answer_length, windows.tokens.shape[1])):
                if windows.first_chars[row, end] >= 0:
                    score = float(logits[0, row, start]) + float(logits[1, row, end])
                    span = windows.first_chars[row, start], windows.last_chars[row, end]
                    found.append((question.context[slice(*span)], *span, score))
    distinct = {}
    for each in sorted(found, key=lambda each: -each[3]):
        distinct.setdefault(each[0], each)
    return list(distinct.values())[:n_best]


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6))
def test_the_best_answers_are_found(tokenizer, seed, max_answer_length, n_best):
    random = np.random.default_rng(seed)
    # All words are different, so that no two answers have the same text.
    questions = [
        ask(" ".join(random.permutation(list(LETTERS))[:size]))
        for size in random.integers(1, 20, 4)
    ]
    windows = windows_of(tokenizer, *questions, max_length=12, stride=3)
    logits = random.normal(size=(2, *windows.tokens.shape)).astype(np.float32)
    # What no answer may use, and the padding, does not matter.
    logits[:, windows.first_chars < 0] += 100
    logits[:, windows.tokens == tokenizer.pad] = np.nan
    predictions = best_answers(
        windows, *logits, questions, max_answer_length=max_answer_length, n_best=n_best
    )
    null_scores = logits.astype(np.float64)[:, :, 0].sum(0)
    for index, (question, prediction) in enumerate(zip(questions, predictions, strict=True)):
        assert prediction.answers == by_hand(
            windows, logits, question, index, max_answer_length, n_best
        )
        assert prediction.null_score == null_scores[windows.questions == index].min()


def test_answers_of_the_same_text_count_once(tokenizer):
    question = ask("a b a")
    windows = windows_of(tokenizer, question)
    logits = np.zeros((2, *windows.tokens.shape))
    logits[:, 0, 6] = 1
    found = best(windows, logits, question, max_answer_length=1)[0].answers
    assert found == [("a", 4, 5, 2), ("b", 2, 3, 0)]


def test_of_equal_scores_the_earlier_and_shorter_comes_first(tokenizer):
    question = ask("a b c d e f g h")
    windows = windows_of(tokenizer, question)
    found = best(windows, np.zeros((2, *windows.tokens.shape)), question, n_best=5)[0].answers
    assert [answer.text for answer in found] == ["a", "a b", "a b c", "a b c d", "a b c d e"]


def test_an_answer_needs_the_window_with_the_best_context(tokenizer):
    question = ask("a b c d e f g h")
    windows = windows_of(tokenizer, question)
    logits = np.zeros((2, *windows.tokens.shape))
    # The first window sees the end of `e` and nothing after it.
    assert windows.first_chars[0, 8] == 8
    logits[:, 0, 8] = 9
    found = best(windows, logits, question, max_answer_length=1)[0].answers
    assert [answer.score for answer in found] == [0, 0, 0]
    # Answers that start before it may end there.
    assert best(windows, logits, question)[0].answers[0] == ("a b c d e", 0, 9, 9)


@pytest.mark.parametrize("field", ["max_answer_length", "n_best"])
def test_limits_must_be_positive(tokenizer, field):
    windows = windows_of(tokenizer, ask("a"))
    with pytest.raises(ConfigError, match=f"{field} is 0: at least 1"):
        best(windows, np.zeros((2, *windows.tokens.shape)), ask("a"), **{field: 0})
