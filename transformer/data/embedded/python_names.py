"""Functions of Python's standard library, with what each name in them stands for.

Python's parser and the rules of scopes decide: `size` may be a parameter here, a local variable
there, and an attribute after a dot. Every Python has these files, so that tagging can be learned
without any download. The files are parsed, not imported.
"""

import ast
import bisect
import builtins
import io
import keyword
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from transformer.data.embedded.held_out import is_held_out
from transformer.data.embedded.name_scopes import Meaning, bound_in, global_names, meanings
from transformer.data.labels.conll import TaggedSentences
from transformer.errors import DataError

_HELD_OUT = 0.1
# Folders without library code: tests, a program, and packages that are not Python's.
_SKIPPED = frozenset(("test", "tests", "idle_test", "idlelib", "site-packages", "dist-packages"))
# The range of the number of tokens of a function, its docstring left out.
_TOKENS = range(12, 81)
# Longer strings become `"..."`.
_STRING_LENGTH = 16
# What the rules below do not read: names without a place in the tree, and strings with names.
_UNREAD = (
    ast.Global,
    ast.Nonlocal,
    ast.ClassDef,
    ast.Import,
    ast.ImportFrom,
    ast.JoinedStr,
    ast.Match,
)
_WORDS = frozenset((tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP))
_BUILTINS = frozenset(dir(builtins))
# The usual names of the object whose method is called: nothing is to be found out about them.
_ITSELF = frozenset(("self", "cls"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


class _Token(NamedTuple):
    """A token of a file, with its line from 1 and its column from 0."""

    kind: int
    text: str
    place: tuple[int, int]


def python_names(folder: Path | None = None) -> tuple[TaggedSentences, TaggedSentences]:
    """Functions to train on and functions to validate on, as words with tags.

    The words are Python's tokens. The tags of names are `PARAMETER`, `LOCAL` (variables of the
    function or of one around it), `ATTRIBUTE` and `METHOD` (behind a dot, without and with a call),
    `KEYWORD` (of an argument), `FUNCTION`, `CLASS`, `MODULE` and `GLOBAL` (what the file binds to
    the name), and `BUILTIN`; all else is `O`, `self` and `cls` too. Functions have 12 to 80 tokens
    without comments and docstring; those with f-strings, `global`, `match`, imports or classes
    inside are left out.

    Whole packages and modules are held out, by their names. A function of another package that
    has the words of a held-out one is left out.

    Args:
        folder: the folder of the library; None takes that of Python. Files that cannot be parsed
            are left out.

    Raises:
        DataError: if there is nothing to train on or nothing to validate on.
    """
    folder = Path(sysconfig.get_paths()["stdlib"]) if folder is None else folder
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py"))
    parts: tuple[dict[tuple[str, ...], tuple[str, ...]], ...] = ({}, {})
    for name, path in files:
        if _SKIPPED.isdisjoint(name.split("/")[:-1]):
            package = name.split("/")[0].removesuffix(".py")
            for words, tags in _of_file(path):
                parts[is_held_out(package, _HELD_OUT)].setdefault(tuple(words), tuple(tags))
    train, validation = parts
    kept = {words: tags for words, tags in train.items() if words not in validation}
    if not kept or not validation:
        raise DataError(f"{folder} holds too few functions to train on some and validate on some.")
    return _sentences(kept), _sentences(validation)


def _sentences(part: dict[tuple[str, ...], tuple[str, ...]]) -> TaggedSentences:
    return TaggedSentences([list(words) for words in part], [list(tags) for tags in part.values()])


def _of_file(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """The words and tags of each suitable function of a file."""
    try:
        with warnings.catch_warnings():
            # Old files have escapes that newer Python versions warn about.
            warnings.simplefilter("ignore")
            source = path.read_text("utf-8")
            tree = ast.parse(source)
            tokens = [
                _Token(token.type, token.string, token.start)
                for token in tokenize.generate_tokens(io.StringIO(source).readline)
            ]
    except (SyntaxError, ValueError, OSError, tokenize.TokenError):
        return
    # The parser counts columns in bytes, the tokenizer in characters.
    if not source.isascii():
        return
    outer = global_names(tree)
    starts = [token.place for token in tokens]
    for function in _functions(tree):
        if any(isinstance(node, _UNREAD) for node in ast.walk(function)):
            continue
        first, end = _span(function, starts)
        words, tags = _tagged(function, tokens[first:end], outer)
        if len(words) in _TOKENS:
            yield words, tags


def _functions(tree: ast.AST) -> Iterator[Function]:
    """Functions that are in no other function, in the order of the file."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node
        elif isinstance(node, ast.stmt | ast.excepthandler):
            yield from _functions(node)


def _span(function: Function, starts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The first token of a function, decorators left out, and the one after its last."""
    begin = (function.lineno, function.col_offset)
    stop = (function.end_lineno or 0, function.end_col_offset or 0)
    return bisect.bisect_left(starts, begin), bisect.bisect_left(starts, stop)


def _tagged(
    function: Function, tokens: Sequence[_Token], outer: dict[str, Meaning]
) -> tuple[list[str], list[str]]:
    """The tokens of a function as words, without comments and docstring, and their tags."""
    known = meanings(function)
    inside = bound_in(function)
    skipped = _docstring_lines(function)
    words: list[str] = []
    tags: list[str] = []
    before = ""
    for kind, text, place in tokens:
        if kind not in _WORDS or place[0] in skipped:
            continue
        long = kind == tokenize.STRING and len(text) > _STRING_LENGTH
        words.append('"..."' if long else text)
        tag = "O"
        if kind == tokenize.NAME and not keyword.iskeyword(text) and text not in _ITSELF:
            if before in ("def", "class"):
                tag = "FUNCTION"
            elif place in known:
                tag = known[place] or _global_tag(text, outer)
            elif text in inside:
                # The name behind `as` of a handler has no place in the tree.
                tag = "LOCAL"
        tags.append(tag)
        before = text
    return words, tags


def _docstring_lines(function: Function) -> range:
    first = function.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if not is_text or first.lineno == function.lineno:
        return range(0)
    return range(first.lineno, (first.end_lineno or first.lineno) + 1)


def _global_tag(name: str, outer: dict[str, Meaning]) -> str:
    """What a name stands for that no function binds."""
    if name in outer:
        return outer[name]
    return "BUILTIN" if name in _BUILTINS else "GLOBAL"
