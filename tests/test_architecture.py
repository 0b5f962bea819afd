"""Imports go down the floors only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "transformer"
FILES = sorted(PACKAGE.rglob("*.py"))
# Modules of one floor import nothing of each other.
FLOORS = (
    {"errors", "limits"},
    {"checks", "files", "traced"},
    {"fields"},
    {"ops", "sharding", "config"},
    {"nn"},
    {"models", "data"},
    {"decoding", "interop", "runtime", "scoring"},
    {"tasks"},
    {"training"},
    {"sweeps"},
    {"command_line"},
)
LINEN = {"nn", "models", "sharding", "decoding", "tasks", "training", "interop"}


def unit(path):
    """What a file belongs to: a folder of the package, or a file at its top."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def floor(name):
    (found,) = (index for index, units in enumerate(FLOORS) if name in units)
    return found


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(path):
    return str(path.relative_to(PACKAGE))


def test_there_are_files():
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_go_down(path):
    if path == PACKAGE / "__init__.py":
        assert not list(imports(path))
        return
    here = unit(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "transformer" and parts[1] != here:
            assert floor(parts[1]) < floor(here), f"{named(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_linen_stays_where_parameters_are(path):
    if unit(path) not in LINEN:
        assert not [name for name in imports(path) if name.startswith("flax")]


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=named)
def test_ops_are_pure(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"flax", "ml_collections", "optax", "grain", "orbax"}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_files_are_short(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400
