import pytest

from transformer.errors import MissingDependencyError
from transformer.scoring.recognition import recognition_scores, require_jiwer, word_errors


def test_errors_of_words():
    pytest.importorskip("jiwer", reason="counts errors")
    # One substitution, one deletion, one insertion.
    outputs = ["the cat  sits", "on mat", "the very end"]
    references = ["the cat sat", "on the mat", "the end"]
    assert word_errors(outputs, references) == (1, 1, 1, 8)
    scores = recognition_scores(outputs, references)
    assert scores["word_error_rate"] == 100 * 3 / 8
    # sits: a becomes i, s is added; "the " and "very " are 4 and 5 characters.
    assert scores["character_error_rate"] == 100 * (2 + 4 + 5) / (11 + 10 + 7)
    assert scores["exact_match"] == 0.0


def test_right_transcripts_and_empty_ones():
    pytest.importorskip("jiwer", reason="counts errors")
    assert recognition_scores(["a b", ""], [" a  b ", ""]) == {
        "word_error_rate": 0.0,
        "character_error_rate": 0.0,
        "exact_match": 100.0,
    }
    assert word_errors(["um so", "a"], ["", "a b"]) == (0, 1, 2, 2)
    assert recognition_scores(["um so"], [""])["word_error_rate"] == 200.0
    assert recognition_scores([], [])["word_error_rate"] == 0.0
    assert recognition_scores([""], ["a b"])["word_error_rate"] == 100.0


def test_without_the_library(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"jiwer.*\[speech\]"):
        require_jiwer()
