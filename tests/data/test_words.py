from transformer.data.audio.words import TimedToken, words_of

TEXT = [" ", "He", "llo", ",", ' "', "wor", "ld", '"', " it", "'s", " (", "so", ")", "."]
BYTES = [b"\xe4\xbd", b"\xa0", b"\xe5\xa5\xbd", b"!"]


def timed(count):
    return [TimedToken(index, index / 10, (index + 1) / 10) for index in range(count)]


def test_words_begin_at_spaces_and_signs_join_them():
    found = words_of(timed(len(TEXT)), lambda ids: "".join(TEXT[i] for i in ids), "en")
    expected = [" Hello,", ' "world"', " it's", " (so)."]
    assert [word.text for word in found] == expected
    assert [(word.start, word.end) for word in found] == [(0, 0.4), (0.4, 0.8), (0.8, 1), (1, 1.4)]
    assert found[2].tokens == (8, 9)


def test_characters_are_not_cut():
    def decode(ids):
        return b"".join(BYTES[i] for i in ids).decode(errors="replace")

    found = words_of(timed(4), decode, "zh")
    assert [(word.text, word.start, word.end) for word in found] == [
        ("你", 0.0, 0.2),
        ("好!", 0.2, 0.4),
    ]
    assert [word.text for word in words_of(timed(4), decode, "")] == ["你好!"]
    assert words_of([], decode, "en") == ()
    # The rest of a character that never came.
    assert words_of(timed(1), decode, "zh")[0].text == "\ufffd"
