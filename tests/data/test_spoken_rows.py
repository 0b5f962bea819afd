"""Rows of words and codes, and the words that a voice knows."""

import json

import numpy as np
import pytest

from transformer.data.audio.pieces import SoundPieces
from transformer.data.audio.spoken_rows import SpokenRows, heard_in, read_vocabulary, row_lengths
from transformer.data.audio.transcribed import HeldRecordings
from transformer.data.order import Bucket
from transformer.data.source import Visit
from transformer.errors import DataError
from transformer.ops.losses import IGNORED


def test_words_come_behind_the_codes_and_the_end():
    words = heard_in(["b a", "a c b"], 10)
    assert (words.words, words.most_words, words.end, words.size) == (("a", "b", "c"), 3, 10, 14)
    assert words.prompt(["c", "a"]).tolist() == [13, 11, 10]
    with pytest.raises(DataError, match="'d': it knows a, b, c"):
        words.prompt(["d"])


def test_a_vocabulary_is_kept(tmp_path):
    words = heard_in(["b a"], 10)
    words.save(tmp_path)
    assert read_vocabulary(tmp_path) == words
    for content in ("[]", '{"num_codes": "1", "words": [], "most_words": 2}', "{"):
        (tmp_path / "words.json").write_text(content)
        with pytest.raises(DataError, match=r"words\.json"):
            read_vocabulary(tmp_path)
    for change, message in (
        ({"num_codes": 0}, "its numbers are none"),
        ({"most_words": True}, "its numbers are none"),
        ({"words": ["a", 1]}, "is damaged"),
    ):
        content = {"num_codes": 10, "words": ["a"], "most_words": 2} | change
        (tmp_path / "words.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=message):
            read_vocabulary(tmp_path)
    (tmp_path / "words.json").unlink()
    with pytest.raises(DataError, match="no run of a voice"):
        read_vocabulary(tmp_path)


def test_every_code_and_the_end_are_predicted_once():
    prompts = [np.array(ids, np.int32) for ids in ([8, 7], [9, 8, 7])]
    codes = [np.array(ids, np.int32) for ids in ([1, 2, 7], [3, 7])]
    assert row_lengths(prompts, codes).tolist() == [4, 4]
    rows = SpokenRows(prompts, codes, (Bucket(2, 4), Bucket(1, 6)))
    batch = rows.batch([Visit(0), Visit(1)])
    assert batch["tokens"].tolist() == [[8, 7, 1, 2], [9, 8, 7, 3]]
    no = IGNORED
    assert batch["labels"].tolist() == [[no, 1, 2, 7], [no, no, 3, 7]]
    assert (rows.padding(Visit(0))["labels"] == IGNORED).all()


def test_pieces_move_and_short_recordings_are_followed_by_silence():
    samples = np.arange(1, 31, dtype=np.int16)
    recordings = HeldRecordings(["a", "b"], ["", ""], np.array([4, 26]), samples)
    still = SoundPieces(recordings, 6, moving=False).batch([Visit(0), Visit(1)])
    assert still["samples"].tolist() == [[1, 2, 3, 4, 0, 0], [5, 6, 7, 8, 9, 10]]
    moving = SoundPieces(recordings, 6, moving=True)
    first = {int(moving.batch([Visit(1, seed)])["samples"][0, 0]) for seed in range(20)}
    assert len(first) > 5
    assert first <= set(range(5, 26))
    again = [moving.batch([Visit(1, 3)])["samples"].tolist() for _ in range(2)]
    assert again[0] == again[1]
    assert moving.padding(Visit(0))["valid"].tolist() == [0]
