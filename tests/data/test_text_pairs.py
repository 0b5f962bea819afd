import collections
import json

import pytest

from transformer.data.pairs.texts import TextPairs, mixed, read_text_pairs
from transformer.errors import ConfigError, DataError


def write(path, *rows):
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    )
    return str(path)


def some(name, count):
    texts = [f"{name}{index}" for index in range(count)]
    return TextPairs([f"{name}: "] * count, texts, [text.upper() for text in texts])


def test_json_lines(tmp_path):
    rows = (
        {"source": " a\u2028b ", "target": "x\ny", "other": 3},
        "\n",
        {"prefix": "sort: ", "source": "c", "target": "z"},
    )
    found = read_text_pairs(write(tmp_path / "p.jsonl", *rows), "do: ", "--path")
    assert found == TextPairs(["do: ", "sort: "], ["a\u2028b", "c"], ["x\ny", "z"])
    assert found.prompts() == (["do: a\u2028b", "sort: c"], ["x\ny", "z"])


def test_files_of_lines(tmp_path):
    (tmp_path / "s").write_text("a\n\nc\n")
    (tmp_path / "t").write_text("x\ny\nz\n")
    found = read_text_pairs(f"{tmp_path}/s,{tmp_path}/t", "do: ", "--path")
    assert found.prompts() == (["do: a", "", "do: c"], ["x", "y", "z"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("3\n", "line 2 holds a whole number: expected a JSON object with 'source' and 'target'"),
        ({"source": "a"}, "line 2 has no 'target'.*prefix, source"),
        ({"source": 3, "target": "a"}, "line 2: 'source' is 3"),
        ({"source": "a", "target": "b", "prefix": None}, "line 2: 'prefix' is None"),
        ({"source": "a", "target": "b\ud83d"}, "line 2: 'target' has half of a surrogate pair"),
        ("[" * 200_000, "line 2 is JSON that cannot be read"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_lines_are_named(tmp_path, row, message):
    path = write(tmp_path / "p.jsonl", {"source": "a", "target": "b"}, row)
    with pytest.raises(DataError, match=rf"p\.jsonl, {message}"):
        read_text_pairs(path, "", "--path")


def test_one_file_of_lines_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.task\.train.*\.jsonl"):
        read_text_pairs(str(tmp_path / "s"), "", "config.task.train")


def test_split():
    train, validation = some("a", 10).split(0.2, "file")
    assert (train.source[-1], validation.source) == ("a7", ["a8", "a9"])
    train, validation = some("a", 2).split(0.0, "file")
    assert (train.source, validation.source) == (["a0"], ["a1"])
    with pytest.raises(DataError, match="file has one pair"):
        some("a", 1).split(0.5, "file")


def test_without_rates_every_pair_is_there_once():
    found = mixed([some("a", 3), some("b", 2)], ())
    assert found.source == ["a0", "a1", "a2", "b0", "b1"]
    assert found.prefix == ["a: "] * 3 + ["b: "] * 2
    assert found.target[-1] == "B1"


@pytest.mark.parametrize(
    ("rates", "counts"),
    [((1.0, 1.0), (30, 30)), ((3.0, 1.0), (30, 10)), ((9.0, 1.0), (63, 7))],
    ids=str,
)
def test_rates(rates, counts):
    found = mixed([some("a", 30), some("b", 7)], rates)
    assert found.prefix == ["a: "] * counts[0] + ["b: "] * counts[1]
    visits = collections.Counter(found.source)
    assert len(visits) == 37
    for name in "ab":
        own = {count for text, count in visits.items() if text.startswith(name)}
        assert max(own) - min(own) <= 1


def test_absurd_rates_are_refused():
    with pytest.raises(ConfigError, match=r"config\.task\.rates would repeat 1 pairs 30,000 times"):
        mixed([some("a", 30), some("b", 1)], (1.0, 1000.0))
