"""README.md and docs/ say what is there: code, files, tests, scripts, flags, configs."""

import importlib.util
import re

import pytest

from tests.pages import PAGES, ROOT, blocks, commands, links, name
from tests.test_promises import TEST, functions
from transformer.errors import UserError
from transformer.training.sections import field_of

SHARED_FLAGS = {"help"}
# What stands for a folder or a run of the reader's own in commands.
PLACES = {"FOLDER": "", "runs/imported": ""}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "title=" in str(blocks(page))], ids=name
)
def test_shown_code_is_in_its_file(page):
    for block in blocks(page):
        if block.file is not None:
            code = (ROOT / block.file).read_text("utf-8")
            # A part of a file has less indentation, and perhaps fewer line ends.
            assert "".join(block.text.split()) in "".join(code.split()), block.file


def test_most_parts_show_code():
    shown = [block for page in PAGES for block in blocks(page) if block.file]
    assert len(shown) > 8


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_are_there(page):
    assert not [link for link in links(page) if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_tests_are_there(page):
    named = set(TEST.findall(page.read_text("utf-8")))
    assert not [f"{file}::{test}" for file, test in named if test not in functions(ROOT / file)]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_commands_name_scripts_flags_and_fields(page):
    for script, *words in commands(page):
        code = (ROOT / script).read_text("utf-8")
        known = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', code)) | SHARED_FLAGS
        config = None
        for word in words:
            if not word.startswith("--"):
                continue
            flag, _, value = word[2:].partition("=")
            key, _, path = flag.partition(".")
            assert flag in known or (key in known and key == "config"), (script, word)
            if flag == "config" and "config_file" in code:
                config = loaded(value)
            elif path and config is not None:
                assert field_of(config, path), word


def loaded(value):
    """The config of a file; None if its variant is a run of the reader's own."""
    file, _, variant = value.partition(":")
    if "NAME" in file or variant.startswith("runs/") or variant.isupper():
        return None
    spec = importlib.util.spec_from_file_location("config_of_a_page", ROOT / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config(variant) if variant else module.get_config()
    except UserError as error:
        raise AssertionError(f"{value}: {error}") from None


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
