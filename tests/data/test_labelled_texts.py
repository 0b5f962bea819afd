import csv
import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.labels.tables import (
    LabelledTexts,
    label_ids,
    numbers,
    read_labelled_texts,
)
from transformer.errors import DataError

TEXTS = LabelledTexts(["a cat", "der Hund"], None, ["en", "de"])
CONTENTS = {
    ".jsonl": '{"text": "a cat", "label": "en"}\n\n{"label": "de", "more": 1, "text": "der Hund"}',
    ".csv": "more,label,text\n1,en,a cat\n\n2,de, der Hund \n",
    ".tsv": "more\tlabel\ttext\n1\ten\ta cat\n\n2\tde\t der Hund \n",
}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("suffix", CONTENTS)
@pytest.mark.parametrize("change", ["plain", "gzip", "CRLF", "byte-order mark", "capitals"])
def test_files(write, suffix, change):
    content, name = CONTENTS[suffix], f"train{suffix}"
    if change == "CRLF":
        content = content.replace("\n", "\r\n")
    elif change == "byte-order mark":
        content = "\ufeff" + content
    elif change == "capitals":
        name = name.upper()
    elif change == "gzip":
        name, content = f"{name}.gz", gzip.compress(content.encode())
    assert read_labelled_texts(write(name, content)) == TEXTS
    assert read_labelled_texts(str(write(name, content))) == TEXTS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", '{"q": "x", "a": "y", "same": 1}\n{"q": "u", "a": "v", "same": 0}\n'),
        ("p.csv", "q,a,same\nx,y,1\nu,v,0\n"),
        ("p.tsv", "q\ta\tsame\nx\ty\t1\nu\tv\t0\n"),
    ],
)
def test_pairs_with_names_of_their_own(write, name, content):
    found = read_labelled_texts(write(name, content), text="q", second="a", label="same")
    assert found == LabelledTexts(["x", "u"], ["y", "v"], ["1", "0"])


@pytest.mark.parametrize(
    ("label", "expected"),
    [("yes", "yes"), (" 1 ", "1"), (1, "1"), (1.0, "1.0"), (-2.5, "-2.5"), (True, "true")],
)
def test_labels_of_json(write, label, expected):
    path = write("l.jsonl", json.dumps({"text": "x", "label": label}))
    assert read_labelled_texts(path).labels == [expected]


def test_quotes_are_letters_in_tsv(write):
    path = write("q.tsv", 'text\tlabel\n"open\t1\nsaid ""so"", he\t0\none\rtwo\u2028three\t1\n')
    assert read_labelled_texts(path).texts == ['"open', 'said ""so"", he', "one\rtwo\u2028three"]


def test_quoted_fields_of_csv(write):
    path = write("q.csv", 'text,label\n"a, b\n\nc ""d""",1\r\ne,0\n')
    assert read_labelled_texts(path) == LabelledTexts(['a, b\n\nc "d"', "e"], None, ["1", "0"])


def test_other_separators_are_letters_in_json(write):
    path = write("s.jsonl", '{"text": "a\u2028b\x85c", "label": 1}\n')
    assert read_labelled_texts(path).texts == ["a\u2028b\x85c"]


word = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)


@given(rows=st.lists(st.tuples(word, word), min_size=1, max_size=5))
def test_what_csv_and_json_writers_write(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("written")
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("text", "label"), *rows])
    (folder / "t.csv").write_bytes(table.getvalue().encode())
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (folder / "t.jsonl").write_text("\n".join(lines), "utf-8")
    expected = [text.strip() for text, _ in rows], None, [label.strip() for _, label in rows]
    assert read_labelled_texts(folder / "t.csv") == expected
    assert read_labelled_texts(folder / "t.jsonl") == expected


def test_folder(write, tmp_path):
    for name in ("pos/2.txt", "pos/10.txt", "neg/1.txt", ".git/x.txt", "pos/.hidden", "README"):
        write(f"reviews/{name}", f"\n {name} \n line 2 \n")
    assert read_labelled_texts(tmp_path / "reviews") == LabelledTexts(
        [f"{name} \n line 2" for name in ("neg/1.txt", "pos/10.txt", "pos/2.txt")],
        None,
        ["neg", "pos", "pos"],
    )


@pytest.mark.parametrize(
    ("files", "named", "message"),
    [
        (["a.txt"], "", "no sub-folders"),
        (["pos/a.txt", "neg/.hidden"], "neg", "is empty"),
        (["pos/a.txt", "neg/b.md"], "neg/b.md", "no .txt file"),
        (["pos/more/a.txt"], "pos/more", "no .txt file"),
    ],
)
def test_unusable_folders(write, tmp_path, files, named, message):
    for file in files:
        write(f"data/{file}", "text")
    with pytest.raises(DataError, match=message) as error:
        read_labelled_texts(tmp_path / "data")
    assert str(error.value).startswith(str(tmp_path / "data" / named))


@pytest.mark.parametrize(("content", "message"), [("\n", "is empty"), ("a\0", "line 1 has a NUL")])
def test_unusable_files_in_folders(write, tmp_path, content, message):
    path = write("data/pos/a.txt", content)
    with pytest.raises(DataError, match=message) as error:
        read_labelled_texts(tmp_path / "data")
    assert str(error.value).startswith(str(path))


def test_folders_have_no_pairs(write, tmp_path):
    write("data/pos/a.txt", "text")
    with pytest.raises(DataError, match="single texts"):
        read_labelled_texts(tmp_path / "data", second="other")


GOOD = '{"text": "a", "label": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("x.jsonl", GOOD + "\n{'text': 1}", 3, "not JSON.*character 2.*one JSON object"),
        ("x.jsonl", GOOD + '{"text": "a",', 2, "not JSON"),
        ("x.jsonl", GOOD + '{"text": ' + "9" * 5000 + "}", 2, "cannot be read"),
        ("x.jsonl", GOOD + "[" * 100_000, 2, "cannot be read"),
        ("x.jsonl", GOOD + '["a", "b"]', 2, "a list: expected a JSON object with 'text', 'label'"),
        ("x.jsonl", GOOD + "null", 2, "null"),
        ("x.jsonl", '{"txt": "a", "label": 1}', 1, 'no "text".*mean "txt".*It has: txt, label'),
        ("x.jsonl", '{"text": "a", "gold": 1}', 1, 'no "label": choose from gold, text'),
        ("x.jsonl", "{}", 1, "is empty: expected 'text', 'label'"),
        ("x.jsonl", GOOD + '{"text": 3, "label": 1}', 2, "'text' is a whole number: exp"),
        ("x.jsonl", '{"text": true, "label": 1}', 1, "'text' is true"),
        ("x.jsonl", '{"text": "a", "label": null}', 1, "'label' is null: expected a string, a num"),
        ("x.jsonl", '{"text": "a", "label": {}}', 1, "'label' is an object"),
        ("x.jsonl", '{"text": " ", "label": 1}', 1, "'text' is empty"),
        ("x.jsonl", '{"text": "a", "label": ""}', 1, "'label' is empty"),
        ("x.jsonl", r'{"text": "a\u0000", "label": 1}', 1, "'text' has a NUL"),
        ("x.jsonl", r'{"text": "a\ud83d", "label": 1}', 1, "half of a surrogate pair"),
        ("x.jsonl", GOOD + "\0", 2, "NUL byte.*iconv -f utf-16"),
        ("x.csv", 'text,label\n"a\nb",1\n"c\nd"\n', 4, "has 1 fields and the header 2"),
        ("x.csv", "text,label\na, b,1\n", 2, "has 3 fields and the header 2"),
        ("x.csv", 'text,label\na,1\n"b\nc,1\n', 3, "a quote may be left open"),
        ("x.csv", 'text,label\n"a" b,1\n', 2, "quotes in it be doubled"),
        ("x.csv", f"text,label\n{'a' * 200_000},1\n", 2, "into a .jsonl file"),
        ("x.csv", "text,label\na,1\n ,1\n", 3, "'text' is empty"),
        ("x.csv", "\nText,label\na,1\n", 2, 'has no "text".*mean "Text"'),
        ("x.csv", "text,label,text\na,1,b\n", 1, "the column 'text' twice"),
        ("x.tsv", "text\tlabel\na\t1\nb\n", 3, "has 1 fields and the header 2"),
        ("x.tsv", "text\tlabel\na\t1\n\t\n", 3, "'text' is empty"),
        ("x.tsv", "text\tlabel\na\t\n", 2, "'label' is empty"),
        ("x.tsv", "text,label\na,1\n", 1, 'has no "text"'),
    ],
)
def test_unusable_lines_are_named(write, name, content, line, message):
    path = write(name, content)
    with pytest.raises(DataError, match=message) as error:
        read_labelled_texts(path)
    assert str(error.value).startswith(f"{path}, line {line}")


def test_second_texts_must_be_there(write):
    with pytest.raises(DataError, match='has no "seconds": did you mean "second"'):
        read_labelled_texts(write("x.csv", "text,second,label\na,b,1\n"), second="seconds")
    with pytest.raises(DataError, match="line 2: 'second' is empty"):
        read_labelled_texts(write("x.csv", "text,second,label\na,,1\n"), second="second")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_no_rows(write, name):
    separator = "," if name.endswith("csv") else "\t"
    with pytest.raises(DataError, match="holds no examples"):
        read_labelled_texts(write(name, f"text{separator}label\n\n"))


@pytest.mark.parametrize("name", ["x.txt", "x.json.gz", "x.gz", "x"])
def test_other_endings(write, name):
    with pytest.raises(DataError, match=r"ending .*\.jsonl, \.csv or \.tsv .* folder"):
        read_labelled_texts(write(name, "text"))


def test_missing_and_damaged_files(write, tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist.*\.jsonl"):
        read_labelled_texts(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not UTF-8"):
        read_labelled_texts(write("x.csv", b"text,label\n\xff,1\n"))


def test_numbers():
    found = numbers(["3.5", "-1", "1e-3", "0"], "x.csv")
    assert found.dtype == np.float32
    assert found.tolist() == [3.5, -1.0, np.float32(1e-3), 0.0]
    assert numbers([], "x.csv").shape == (0,)


@pytest.mark.parametrize("label", ["good", "nan", "inf", "-Infinity", "1e39", "true", "1,5"])
def test_labels_that_are_no_numbers(label):
    with pytest.raises(DataError, match=f"^x.csv: the label of example 2 is '{label}'"):
        numbers(["1", label, "also bad"], "x.csv")


def test_label_ids():
    found = label_ids(["b", "a", "b"], ("a", "b"), "x.csv")
    assert found.dtype == np.int32
    assert found.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("label", "hint"),
    [("posotive", 'did you mean "positive"'), ("xyz", "choose from negative, positive")],
)
def test_unknown_labels(label, hint):
    with pytest.raises(
        DataError, match=f'^x.csv.*example 2.*2 known labels has no "{label}".*{hint}'
    ):
        label_ids(["positive", label, "other"], ["positive", "negative"], "x.csv")
