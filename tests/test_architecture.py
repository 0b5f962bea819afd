"""Imports go down the floors only."""

import ast
import functools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "transformer"
FILES = sorted(PACKAGE.rglob("*.py"))
# Modules of one floor import nothing of each other.
FLOORS = (
    {"installed"},
    {"commands", "composition", "errors", "limits", "types"},
    {"checks", "files", "locks", "progress", "signals", "streams", "traced"},
    {"fields"},
    {"caches", "ops", "sharding", "sections"},
    {"nn"},
    {"compiled_programs", "data", "models"},
    {"decoding", "interop", "pictures", "runtime", "scoring"},
    {"tasks"},
    {"training"},
    {"runs", "planning"},
    {"sweeps", "config", "explaining"},
    {"completion", "config_files"},
    {"command_line", "__main__"},
)
LINEN = {
    "nn",
    "models",
    "sharding",
    "decoding",
    "pictures",
    "tasks",
    "training",
    "runs",
    "planning",
    "interop",
    "explaining",
}


def unit(path):
    """What a file belongs to: a folder of the package, or a file at its top."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def floor(name):
    (found,) = (index for index, units in enumerate(FLOORS) if name in units)
    return found


@functools.cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def imports(path):
    for node in nodes(path):
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
        if parts[0] == "transformer" and parts[1] not in {here, "__version__"}:
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


@pytest.mark.parametrize("path", sorted((PACKAGE / "tasks").rglob("*.py")), ids=named)
def test_tasks_inherit_nothing(path):
    """They are composed of parts; only protocols extend others."""
    for node in nodes(path):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
            assert bases <= {"NamedTuple", "Generic"} or "Protocol" in bases, node.name


# What an operating system, an interpreter or its objects may lack.
ASKED = {"checks.py", "command_line.py", "locks.py", "runtime.py", "signals.py", "sweeps/sweep.py"}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_abilities_are_declared(path):
    """Protocols say what a part can do: it is not asked for by name."""
    asked = {
        ast.unparse(node)
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"getattr", "hasattr"}
        and (node.func.id == "hasattr" or isinstance(node.args[1], ast.Constant))
    }
    assert not asked or path.relative_to(PACKAGE).as_posix() in ASKED, asked


# What may write a file by itself, and why.
WRITERS = {
    # Here it is done.
    "files.py": {"open", "rmtree", "savefig"},
    # A log grows at its end.
    "training/metrics.py": {"open"},
    # Into the place of another file, which `files.replacing` or `caches.write_entry` gives.
    "data/text/streams.py": {"save"},
    "interop/formats/safetensors.py": {"save_file"},
    "scripts/embed.py": {"save"},
    # Deletes checkpoints that Orbax has moved away.
    "training/checkpoints.py": {"rmtree"},
}
SHUTIL = {"copy", "copy2", "copyfile", "copytree", "move", "rmtree"}
NUMPY = {"memmap", "save", "savetxt", "savez", "savez_compressed"}


def writing_calls(path):
    """The names of functions that write to files in place."""
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        constants = [*node.args, *(keyword.value for keyword in node.keywords)]
        values = [value.value for value in constants if isinstance(value, ast.Constant)]
        mode = [value for value in values if isinstance(value, str) and len(value) <= 3]
        if (
            (name == "open" and owner != "os" and set("".join(mode)) & set("wax+"))
            or (name == "memmap" and set("".join(mode)) & set("wc+"))
            or (name in {"write_text", "write_bytes"} and isinstance(node.func, ast.Attribute))
            or (name in SHUTIL and owner == "shutil")
            or (name in NUMPY - {"memmap"} and owner in {"np", "numpy"})
            or (name == "dump" and owner == "json")
            or name in {"savefig", "save_file", "tofile", "touch", "NamedTemporaryFile"}
        ):
            yield name


SCRIPTS = PACKAGE.parent / "scripts"


@pytest.mark.parametrize(
    "path", [*FILES, *sorted(SCRIPTS.glob("*.py"))], ids=lambda path: path.name
)
def test_files_are_written_in_one_place(path):
    folder = PACKAGE if PACKAGE in path.parents else PACKAGE.parent
    allowed = WRITERS.get(path.relative_to(folder).as_posix(), set())
    assert set(writing_calls(path)) == allowed, (
        "write with transformer/files.py: aside, to disk, then renamed"
    )
