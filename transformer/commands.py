"""What the scripts are, read from their text: to list and complete them nothing is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from transformer.installed import CONFIGS, SCRIPTS


class Flag(NamedTuple):
    """One flag of a script.

    Attributes:
        name: without the dashes.
        kind: what follows `DEFINE_` in its definition: `string`, `bool`, `config_file`, ...
        meaning: its help; empty if it is not written out there.
        choices: all its values, of an `enum`.
    """

    name: str
    kind: str
    meaning: str
    choices: tuple[str, ...]


class Command(NamedTuple):
    """One script: its name, the first line of its docstring, and its flags."""

    name: str
    title: str
    flags: tuple[Flag, ...]


def commands() -> list[Command]:
    """All scripts, by name."""
    return [_command(path) for path in sorted(SCRIPTS.glob("*.py"))]


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.py"))}


def variants(config: Path) -> list[str]:
    """The names that may follow the name of a config and a colon."""
    return list(_constants(ast.parse(config.read_text("utf-8"))).get("VARIANTS", ()))


def _command(path: Path) -> Command:
    tree = ast.parse(path.read_text("utf-8"))
    title = (ast.get_docstring(tree) or "").partition("\n")[0]
    return Command(path.stem, title, tuple(_flags(tree)))


def _flags(tree: ast.Module) -> Iterator[Flag]:
    constants = _constants(tree)
    for node in tree.body:
        match node:
            case ast.Expr(
                ast.Call(ast.Attribute(attr=definition), [ast.Constant(str(name)), _, *rest])
            ) if definition.startswith("DEFINE_"):
                choices: tuple[str, ...] = ()
                if definition == "DEFINE_enum":
                    choices = tuple(_value(rest.pop(0), constants))
                meaning = _value(rest[0], constants) if rest else ""
                yield Flag(name, definition.removeprefix("DEFINE_"), str(meaning), choices)


def _constants(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Names of the module that stand for texts: a tuple of them, or the keys of a dictionary."""
    found = {}
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Tuple(texts) | ast.Dict(texts)):
                keys = [text.value for text in texts if isinstance(text, ast.Constant)]
                found[name] = tuple(str(key) for key in keys)
    return found


def _value(node: ast.expr, constants: dict[str, tuple[str, ...]]) -> str | tuple[str, ...]:
    if isinstance(node, ast.Name):
        return constants.get(node.id, ())
    value = ast.literal_eval(node)
    return value if isinstance(value, str) else tuple(value)
