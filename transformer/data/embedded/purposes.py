"""What functions and classes are for: summaries of docstrings of packages that are installed.

The packages are those that this one needs, and Python's standard library. Their files are parsed,
not imported. The number of pairs depends on their versions, and a package that is missing is left
out.
"""

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from transformer.data.embedded.docstrings import Definition, definitions
from transformer.data.embedded.packages import package_folder
from transformer.data.pairs.files import Pairs, columns
from transformer.errors import DataError

# Whole packages kept for validation: mathematics, images, and versions of packages.
HELD_OUT_PACKAGES = ("optax", "PIL", "packaging")
_PACKAGES = (
    "numpy",
    "scipy",
    "jax",
    "flax",
    "orbax.checkpoint",
    "matplotlib",
    "fontTools",
    "pygments",
    "rich",
    "grain",
    "absl",
    "etils",
    "treescope",
    "pyparsing",
    "chex",
    "dateutil",
    "ml_collections",
)
# The numbers of words of a summary.
_SUMMARY_WORDS = range(3, 25)
# The fewest words that a body has in validation; without a body there is only the name to go by.
_LEAST_BODY = 10
# The most words of a body.
_BODY_WORDS = 80
# What ends the running text of a docstring: fields, examples, directives.
_FIELD = re.compile(
    r"(?:[A-Z][\w ]*:|Parameters|Returns|Args?:.*)\s*$|:\w[\w ]*.*:|>>>|\.\. |@\w+|\|"
)
_UNDERLINE = re.compile(r"[-=~]{3,}\s*$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")


def purposes() -> tuple[Pairs, Pairs]:
    """Signatures with the rest of the docstring, and its first sentence.

    A source is the name, the parameters' names, and the docstring's running text after its first
    sentence: lists of parameters and examples are taken off. Validation pairs are those of three
    packages, with at least ten words of text. A training pair that shares its target or its text
    with one of them is left out.

    Returns:
        Pairs to train on and pairs to validate on.

    Raises:
        DataError: if none of the packages to train on, or none of the others, is installed.
    """
    train = dict.fromkeys(pair for name in ("", *_PACKAGES) for pair in _of_package(name))
    held_out = dict.fromkeys(pair for name in HELD_OUT_PACKAGES for pair in _of_package(name))
    validation = [pair for pair in held_out if len(_body(pair[0]).split()) >= _LEAST_BODY]
    if not train or not validation:
        raise DataError(
            f"the packages {', '.join(HELD_OUT_PACKAGES)} are not installed: they are validated on."
        )
    known = {text for source, target in held_out for text in (target, _body(source)) if text}
    kept = [
        (source, target) for source, target in train if known.isdisjoint((target, _body(source)))
    ]
    return columns(kept), columns(validation)


def _body(source: str) -> str:
    """A source without its name and parameters."""
    return source.partition(": ")[2]


def _of_package(name: str) -> Iterator[tuple[str, str]]:
    """The pairs of a package; those of the standard library without a name."""
    folder = Path(sysconfig.get_paths()["stdlib"]) if not name else package_folder(name)
    if folder is not None:
        for definition in definitions(folder):
            pair = _pair(definition)
            if pair is not None:
                yield pair


def _pair(definition: Definition) -> tuple[str, str] | None:
    """Source and target; None if the docstring has no summary."""
    if not definition.signature:
        return None
    text = running_text(definition.text)
    summary, *rest = _SENTENCE_END.split(text, maxsplit=1)
    if len(summary.split()) not in _SUMMARY_WORDS:
        return None
    body = " ".join(" ".join(rest).split()[:_BODY_WORDS])
    return f"{definition.signature}: {body}".rstrip(), summary


def running_text(docstring: str) -> str:
    """A docstring up to its first list of parameters, example or the like, as one line.

    Its first paragraph is its summary and ends as a sentence does.
    """
    kept: list[str] = []
    for line in docstring.strip().splitlines():
        text = line.strip()
        if _UNDERLINE.match(text) and kept:
            # The line before was a heading.
            kept.pop()
            break
        if _FIELD.match(text):
            break
        kept.append(text)
    first, *others = re.split(r"\n\s*\n", "\n".join(kept).strip())
    first = " ".join(first.split())
    if first and first[-1] not in ".!?:":
        first += "."
    return " ".join([first, *" ".join(others).split()])
