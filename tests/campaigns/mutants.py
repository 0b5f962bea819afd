"""Which small changes of a file its tests do not notice.

    pip install cosmic-ray
    python -m tests.campaigns.mutants transformer/ops/masks.py tests/ops/test_masks.py

cosmic-ray makes the mutants: another operator, another constant, a condition turned round. Each is
tested in a forked process of a copy, which has imported JAX already, so that one takes seconds.
Those that survive are shown; each needs a test, or a reason.
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tests
from tests.campaigns.frame import ROOT, forked

SECONDS = 300.0


class _Bare(ast.NodeTransformer):
    """Takes annotations away: they say nothing about what a program computes."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def bare(code: str) -> str:
    """What must differ between a program and its mutant."""
    return ast.dump(_Bare().visit(ast.parse(code)))


def mutants(code: str) -> Iterator[str]:
    """All mutants that compute something else."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    known = {bare(code)}
    for name in sorted(operator_names()):
        # These need to be told what to exchange.
        if name in ("core/VariableReplacer", "core/VariableInserter"):
            continue
        occurrence = 0
        while (mutant := mutate_code(code, get_operator(name)(), occurrence)) is not None:
            occurrence += 1
            # Some are no programs.
            with contextlib.suppress(SyntaxError):
                if (essence := bare(mutant)) not in known:
                    known.add(essence)
                    yield mutant


def tested(names: list[str]) -> int:
    """Runs tests in this process, a forked one; the exit code of pytest."""
    import pytest

    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    # Here JAX and others are imported before pytest, on purpose.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *names]))


def tested_all(file: Path, names: list[str], folder: Path, every: int) -> int:
    """Tests each n-th mutant of a file in a folder, which becomes the copy; how many survive."""
    for part in ("transformer", "tests", "scripts", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    # Everything else is imported from the copy, in the forked processes.
    tests.__path__[:] = [str(folder / "tests")]
    tests.__file__ = str(folder / "tests" / "__init__.py")
    for package in ("flax.linen", "hypothesis", "jax.numpy"):
        importlib.import_module(package)
    first = forked(lambda: tested(names), seconds=SECONDS)
    assert first.code == 0, f"the tests fail: {first.stdout} {first.stderr}"
    count, survivors, code = 0, 0, (ROOT / file).read_text("utf-8")
    for mutant in itertools.islice(mutants(code), 0, None, every):
        (folder / file).write_text(mutant, "utf-8")
        count += 1
        print(f"{count} mutants, {survivors} survive", end="\r", file=sys.stderr)
        if forked(lambda: tested(names), seconds=SECONDS).code == 0:
            survivors += 1
            before, after = code.splitlines(), mutant.splitlines()
            lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))
            print("\n".join(lines[2:]), flush=True)
    print(f"{count} mutants, {survivors} survive")
    return survivors


def main() -> int:
    """Shows the survivors; their number, at most 1, is the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--every", type=int, default=1, help="only each n-th mutant")
    given = parser.parse_args()
    # No TemporaryDirectory: each forked process would remove it at its end.
    folder = Path(tempfile.mkdtemp())
    try:
        survivors = tested_all(given.file, given.tests, folder, given.every)
    finally:
        shutil.rmtree(folder)
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main())
