"""What docs/promises.md names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "promises.md").read_text("utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
CAMPAIGN = re.compile(r"`tests\.campaigns\.(\w+)`")


def functions(path):
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if hasattr(node, "name")}


def test_every_test_that_keeps_a_promise_exists():
    named = set(TEST.findall(PAGE))
    assert len(named) > 40
    known = {file: functions(ROOT / file) for file in {file for file, _ in named}}
    assert not [f"{file}::{name}" for file, name in named if name not in known[file]]


def test_every_campaign_keeps_a_promise():
    files = (ROOT / "tests" / "campaigns").glob("*.py")
    programs = {
        file.stem for file in files if '\nif __name__ == "__main__":' in file.read_text("utf-8")
    }
    # That one tries the tests themselves.
    assert set(CAMPAIGN.findall(PAGE)) == programs - {"mutants"}


def test_every_promise_has_somebody_who_keeps_it():
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    kept = [row for row in rows if row[0] != "| promise"]
    assert len(kept) > 40
    assert all(TEST.search(row[1]) or CAMPAIGN.search(row[1]) for row in kept)
