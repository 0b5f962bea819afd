"""The campaign that tries the tests: its mutants, and that a process imports them."""

import importlib
import sys
from importlib.machinery import SourceFileLoader

from tests.campaigns.mutants import replaced
from tests.campaigns.mutated_code import mutants

PROGRAM = '''"""Adds, by 1 or 2."""

import jax.numpy as jnp


def added(x: "Array[2 + 1]", bias=None) -> "3":
    """Not 1 < 2."""
    if x < 1 and bias is None:
        raise ValueError(f"{x + 1}")
    x = jnp.sum(x, axis=-1)
    return x if not bias else x + 2.0 * bias
'''


def test_mutants_change_one_thing_that_is_computed():
    found = [(one.line, one.before, one.after) for one in mutants(PROGRAM)]
    assert sorted(found) == sorted(
        [
            (8, "x < 1 and bias is None", "not (x < 1 and bias is None)"),
            (8, "x < 1 and bias is None", "x < 1 or bias is None"),
            (8, "x < 1", "x <= 1"),
            (8, "1", "2"),
            (8, "bias is None", "bias is not None"),
            (10, "x = jnp.sum(x, axis=-1)", "pass"),
            (10, "jnp.sum(x, axis=-1)", "jnp.sum(x)"),
            (10, "jnp.sum(x, axis=-1)", "jnp.mean(x, axis=-1)"),
            (10, "-1", "1"),
            (10, "1", "2"),
            (11, "not bias", "bias"),
            (11, "x + 2.0 * bias", "x - 2.0 * bias"),
            (11, "2.0 * bias", "2.0 / bias"),
            (11, "2.0", "4.0"),
        ]
    )
    for one in mutants(PROGRAM):
        lines, others = PROGRAM.splitlines(), one.code.splitlines()
        changed = [
            n for n, pair in enumerate(zip(lines, others, strict=True), 1) if len({*pair}) > 1
        ]
        assert changed == [one.line]


def test_operands_of_others_stay_whole():
    codes = [one.code for one in mutants("x = a * b - -c\n")]
    assert codes == ["x = (a * b + -c)\n", "x = (a / b) - -c\n", "x = a * b - (c)\n"]


def test_a_replaced_file_is_what_everybody_imports(monkeypatch, tmp_path):
    file = tmp_path / "little_victim.py"
    file.write_text("IS_MUTANT = False\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    # What `replaced` changes for ever is changed back here.
    for name in ("get_data", "path_stats"):
        monkeypatch.setattr(SourceFileLoader, name, getattr(SourceFileLoader, name))
    for is_mutant in (False, True):
        if is_mutant:
            replaced(file, "IS_MUTANT = True\n")
        found = importlib.import_module("little_victim")
        assert is_mutant == found.IS_MUTANT
        monkeypatch.delitem(sys.modules, "little_victim")
    assert file.read_text("utf-8") == "IS_MUTANT = False\n"
