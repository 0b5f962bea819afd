"""Texts with labels, from JSON lines, tables, or a folder for each label."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from transformer.data.reading.json_text import json_lines, kind_of
from transformer.data.reading.text import read_text, require_characters
from transformer.errors import DataError
from transformer.fields import unknown_name

# The supported formats, for messages.
_READABLE = (
    "a .jsonl, .csv or .tsv file (also with .gz), or a folder with a sub-folder for each label"
)


class LabelledTexts(NamedTuple):
    """Texts, or pairs of texts, and their labels.

    Attributes:
        texts: the first or only text of each example.
        seconds: the second texts of pairs; None for single texts.
        labels: as the file writes them; for regression, numbers as text.
    """

    texts: list[str]
    seconds: list[str] | None
    labels: list[str]


class _Row(NamedTuple):
    """The values of one line for the wanted names, in their order.

    Attributes:
        where: the file and the line, for messages.
        values: strings, or for JSON whatever was there.
    """

    where: str
    values: Sequence[object]


def read_labelled_texts(
    path: str | Path,
    *,
    text: str = "text",
    second: str = "",
    label: str = "label",
    separator: str = "",
) -> LabelledTexts:
    """Texts with labels, in the order of the file. White space around each is taken off.

    Args:
        path: one of these, all UTF-8; a file may be compressed with gzip.

            - `.jsonl`: one JSON object a line. Labels may be strings, numbers or booleans; `1` and
              `1.0` are different labels.
            - `.csv`: a header line, then one row an example. A field in double quotes may hold
              commas, line ends and, doubled, quotes.
            - `.tsv`: a header line, then one line an example, fields separated by tabs. Quotes are
              ordinary characters, as in the files of GLUE (Wang et al. 2018).
            - a folder with a sub-folder for each label, named as the label, holding one `.txt` file
              for each text. Hidden files and folders, and files beside the sub-folders, are not
              read. Sub-folders and files are read in the order of their names.
        text: key or column of the texts; not for folders.
        second: key or column of the second texts of pairs; empty for single texts.
        label: key or column of the labels; not for folders.
        separator: if given, an example has any number of labels: it stands between them, JSON may
            have a list, and nothing means none.

    Raises:
        DataError: if something is missing, damaged, empty or of the wrong type, naming the line.
    """
    path = Path(path)
    if path.is_dir():
        if second:
            raise DataError(
                f"{path} is a folder, which holds single texts: put pairs of texts, with the "
                f"second ones as {second!r}, into a .jsonl, .csv or .tsv file."
            )
        return _read_folder(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: give {_READABLE}.")
    wanted = [text, label, *([second] if second else [])]
    rows = _rows(path, wanted)
    texts, seconds, labels = [], [], []
    for where, values in rows:
        texts.append(_text(values[0], text, where))
        labels.append(
            _several(values[1], label, where, separator)
            if separator
            else _label(values[1], label, where)
        )
        if second:
            seconds.append(_text(values[2], second, where))
    if not texts:
        raise DataError(f"{path} holds no examples.")
    return LabelledTexts(texts, seconds if second else None, labels)


def numbers(labels: Sequence[str], where: str) -> Float32[np.ndarray, " n"]:
    """Labels as numbers, for regression.

    Args:
        labels: the text of one number each.
        where: what they were read from, for messages.

    Raises:
        DataError: if a label is not a finite number that float32 can hold.
    """
    found = np.empty(len(labels), np.float32)
    largest = float(np.finfo(np.float32).max)
    for index, label in enumerate(labels):
        try:
            number = float(label)
        except ValueError:
            number = np.nan
        # Comparisons with NaN are false.
        if not abs(number) <= largest:
            raise DataError(
                f"{where}: the label of example {index + 1} is {label!r}, and regression needs "
                f"finite numbers, such as 3.5."
            )
        found[index] = number
    return found


def label_ids(labels: Sequence[str], known: Sequence[str], where: str) -> Int32[np.ndarray, " n"]:
    """The place of each label among the known ones.

    Args:
        labels: the labels of the examples.
        known: all labels there are, each once.
        where: what `labels` were read from, for messages.

    Raises:
        DataError: if a label is not known.
    """
    places = {label: place for place, label in enumerate(known)}
    for index, label in enumerate(labels):
        if label not in places:
            unknown = unknown_name(f"the set of {len(known)} known labels", label, known)
            raise DataError(f"{where}: the label of example {index + 1} is new: {unknown}")
    return np.array([places[label] for label in labels], np.int32)


def _read_folder(folder: Path) -> LabelledTexts:
    """One sub-folder for each label, one file for each text."""
    label_folders = [entry for entry in _visible(folder) if entry.is_dir()]
    if not label_folders:
        raise DataError(
            f"{folder} has no sub-folders: expected one for each label, named as the label."
        )
    texts, labels = [], []
    for label_folder in label_folders:
        files = _visible(label_folder)
        if not files:
            raise DataError(
                f"{label_folder} is empty: expected a .txt file for each text with this label."
            )
        for file in files:
            if file.suffix != ".txt" or file.is_dir():
                raise DataError(
                    f"{file} is no .txt file: the folder of a label holds one for each text, and "
                    f"nothing else."
                )
            texts.append(_text(read_text(file), "text", str(file)))
            labels.append(label_folder.name)
    return LabelledTexts(texts, None, labels)


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, by name, without hidden things."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _rows(path: Path, wanted: Sequence[str]) -> Iterator[_Row]:
    """The rows of a file, without blank lines.

    Raises:
        DataError: if the file cannot be used.
    """
    if path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        return _json_rows(path, wanted)
    readers = {".csv": _csv_lines, ".tsv": _tsv_lines}
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in readers:
        raise DataError(f"{path} has the ending {path.suffix!r}: give {_READABLE}.")
    return _table_rows(path, readers[suffix](path, read_text(path)), wanted)


def _json_rows(path: Path, wanted: Sequence[str]) -> Iterator[_Row]:
    for where, row in json_lines(path, ", ".join(map(repr, wanted))):
        _require(wanted, row, where)
        yield _Row(where, [row[key] for key in wanted])


def _csv_lines(path: Path, content: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the line where a row begins, and its fields."""
    # Line feeds may be part of a field.
    reader = csv.reader(io.StringIO(content, newline="\n"), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = (
                "Put longer texts into a .jsonl file."
                if "field limit" in str(error)
                else "A field that holds quotes, commas or line ends must be in double quotes, and "
                "quotes in it be doubled; a quote may be left open here."
            )
            raise DataError(f"{path}, line {first}: {error}. {hint}") from None
        if fields:
            yield first, fields


def _tsv_lines(path: Path, content: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line and its fields."""
    # The csv module would end a line at a carriage return inside of a field, too.
    lines = enumerate(content.split("\n"), 1)
    return ((number, line.split("\t")) for number, line in lines if line)


def _table_rows(
    path: Path, lines: Iterator[tuple[int, list[str]]], wanted: Sequence[str]
) -> Iterator[_Row]:
    """The rows below a header.

    Args:
        path: the path of the file.
        lines: the number of each line and its fields.
        wanted: names of columns.
    """
    number, header = next(lines, (1, []))
    where = f"{path}, line {number}"
    header = [name.strip() for name in header]
    _require(wanted, header, f"{where} (the header)")
    for name in wanted:
        if header.count(name) > 1:
            raise DataError(f"{where} (the header) has the column {name!r} twice: rename one.")
    places = [header.index(name) for name in wanted]
    for number, fields in lines:
        where = f"{path}, line {number}"
        if len(fields) != len(header):
            raise DataError(
                f"{where} has {len(fields)} fields and the header {len(header)}: a separator may "
                f"be missing, or stand in a text."
            )
        yield _Row(where, [fields[place] for place in places])


def _require(wanted: Iterable[str], there: Iterable[str], where: str) -> None:
    """Refuses a line without one of the wanted names, and says which there are."""
    there = list(there)
    if not there:
        raise DataError(f"{where} is empty: expected {', '.join(map(repr, wanted))}.")
    for name in wanted:
        if name not in there:
            message = unknown_name(where, name, there)
            if message.endswith("?"):
                message += f" It has: {', '.join(there)}."
            raise DataError(message)


def _text(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {name!r} is {kind_of(value)}: expected a string.")
    return _plain(value, name, where)


def _label(value: object, name: str, where: str) -> str:
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{where}: {name!r} is {kind_of(value)}: expected a string, a number, true or false."
        )
    return _plain(value if isinstance(value, str) else json.dumps(value), name, where)


def _several(value: object, name: str, where: str, separator: str) -> str:
    """Joins any number of labels to one string."""
    if isinstance(value, list):
        found = [_label(each, name, where) for each in value]
        for each in found:
            if separator in each:
                raise DataError(
                    f"{where}: the label {each!r} of {name!r} has {separator!r} in it, which is to "
                    f"stand between labels: set config.task.label_separator to something else."
                )
        return separator.join(found)
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    return _label(value, name, where)


def split(labels: str, separator: str) -> list[str]:
    """The labels in a string with separators between, without white space around each."""
    return [label.strip() for label in labels.split(separator) if label.strip()]


def label_sets(
    labels: Sequence[str], known: Sequence[str], separator: str, where: str
) -> Int32[np.ndarray, "n c"]:
    """Which of the known labels each example has, as 1 and 0.

    Args:
        labels: the labels of the examples, with separators between.
        known: all labels there are, each once.
        separator: what stands between two.
        where: what `labels` were read from, for messages.

    Raises:
        DataError: if a label is not known.
    """
    found = np.zeros((len(labels), len(known)), np.int32)
    for row, several in enumerate(labels):
        for label in split(several, separator):
            if label not in known:
                unknown = unknown_name(f"the set of {len(known)} known labels", label, known)
                raise DataError(f"{where}: a label of example {row + 1} is new: {unknown}")
            found[row, known.index(label)] = 1
    return found


def _plain(value: str, name: str, where: str) -> str:
    """The string without white space around it, if it is one that can be encoded."""
    value = value.strip()
    if not value:
        raise DataError(f"{where}: {name!r} is empty: leave the example out, or fill it in.")
    # JSON can write both as escapes.
    if "\0" in value:
        raise DataError(f"{where}: {name!r} has a NUL character: take it out.")
    return require_characters(value, f"{where}: {name!r}")
