"""Docstrings of Python's standard library: texts whose first line says what the rest is about.

The files are parsed, not imported. Every Python has them, so that summaries can be learned without
any download.
"""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from transformer.data.embedded.held_out import is_held_out
from transformer.data.pairs.files import Pairs, columns
from transformer.errors import DataError

# Folders without library documentation: tests, and a program.
_SKIPPED = frozenset(("test", "tests", "idle_test", "idlelib", "site-packages", "dist-packages"))
# The number of words of a summary, and the minimum ratio of the length of a body to it.
_SUMMARY_WORDS = range(3, 25)
_LEAST_RATIO = 1.0
# The maximum number of words of a body; later text says less about the whole.
_BODY_WORDS = 150
# The most parameters in a signature.
_PARAMETERS = 8
# Nodes that may contain definitions.
_HOLDERS = (ast.stmt, ast.excepthandler, ast.match_case)


class Docstring(NamedTuple):
    """The documentation of a module, class or function.

    Attributes:
        module: its file, relative to the library's folder, with slashes.
        text: the whole docstring, without common indentation.
    """

    module: str
    text: str


class Definition(NamedTuple):
    """A module, class or function that is documented.

    Attributes:
        module: see `Docstring`.
        signature: `name(first, second)` of a function, with at most eight parameters; `class Name`
            of a class; empty for a module.
        text: see `Docstring`.
    """

    module: str
    signature: str
    text: str


def docstrings(folder: Path | None = None) -> list[Docstring]:
    """All docstrings of a library, in the order of its files and of their places in them.

    Args:
        folder: the folder of the library; None takes that of Python. Files that cannot be parsed
            are left out.

    Raises:
        DataError: if there is none.
    """
    folder = Path(sysconfig.get_paths()["stdlib"]) if folder is None else folder
    found = [Docstring(each.module, each.text) for each in definitions(folder)]
    if not found:
        raise DataError(f"{folder} holds no Python files with docstrings.")
    return found


def definitions(folder: Path) -> Iterator[Definition]:
    """All documented definitions of a library or package, in the order of `docstrings`."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py"))
    for name, path in files:
        if _SKIPPED.isdisjoint(name.split("/")[:-1]):
            for node, text in _of_file(path):
                yield Definition(name, _signature(node), text)


def summaries(held_out: float, folder: Path | None = None) -> tuple[Pairs, Pairs]:
    """Bodies and first lines of docstrings: pairs to train on and pairs to validate on.

    Validation pairs are those of whole modules. A pair of another module that shares a body or a
    summary with one of them, as copies of a function do, is left out.

    Args:
        held_out: the fraction of modules kept for validation; their names decide.
        folder: see `docstrings`.

    Raises:
        DataError: if there is nothing to train on or nothing to validate on.
    """
    train: dict[tuple[str, str], None] = {}
    validation: dict[tuple[str, str], None] = {}
    for docstring in docstrings(folder):
        pair = summarized(docstring.text)
        if pair is not None:
            (validation if is_held_out(docstring.module, held_out) else train)[pair] = None
    known = {text for pair in validation for text in pair}
    kept = [pair for pair in train if known.isdisjoint(pair)]
    if not kept or not validation:
        raise DataError("the docstrings found are too few to train on some and validate on others.")
    return columns(kept), columns(list(validation))


def docstring_text(held_out: float, folder: Path | None = None) -> tuple[str, str]:
    """The same docstrings as running text: of the modules to train on, and of the held-out ones.

    See `summaries` for arguments and errors.
    """
    parts: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for docstring in docstrings(folder):
        parts[is_held_out(docstring.module, held_out)][docstring.text] = None
    validation = list(parts[True])
    # Copies may differ in one paragraph and share the others.
    known = {paragraph for text in validation for paragraph in _paragraphs(text)}
    train = [text for text in parts[False] if known.isdisjoint(_paragraphs(text))]
    if not train or not validation:
        raise DataError("the docstrings found are too few to train on some and validate on others.")
    return "\n\n".join(train) + "\n", "\n\n".join(validation) + "\n"


def summarized(docstring: str) -> tuple[str, str] | None:
    """The body of a docstring and its first line; None if that line is not a summary of the body.

    White space becomes single spaces, and a long body is cut.
    """
    first, _, rest = docstring.strip().partition("\n")
    # A summary is a paragraph of its own (PEP 257).
    if not rest.startswith("\n"):
        return None
    summary, body = first.split(), rest.split()
    if len(summary) not in _SUMMARY_WORDS or len(body) < _LEAST_RATIO * len(summary):
        return None
    return " ".join(body[:_BODY_WORDS]), " ".join(summary)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _signature(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    arguments = node.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return f"{node.name}({', '.join(names[:_PARAMETERS])})"


def _of_file(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """The documented nodes of a file with their docstrings, outer ones first."""
    try:
        with warnings.catch_warnings():
            # Old files have escapes that newer Python versions warn about.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, kinds):
            text = ast.get_docstring(node)
            if text:
                yield node, text
        # No expression holds a definition with a docstring.
        waiting += (child for child in ast.iter_child_nodes(node) if isinstance(child, _HOLDERS))
