"""`--help=config.task` and the like describe every field."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from transformer.composition import config_fields, parts
from transformer.config import complete, section
from transformer.errors import ConfigError
from transformer.fields import declared
from transformer.training.meanings import help_on, meanings
from transformer.training.sections import OPTIONAL_SECTIONS, SECTIONS, choices, owner

OWNERS = [
    (kind, name)
    for kind in SECTIONS + OPTIONAL_SECTIONS
    for name in (choices(kind) if kind in ("model", "task") else [None])
]


def undescribed(belongs):
    known = meanings(belongs)
    yield from (part for part in parts(belongs) if not known.get(part))
    for key in config_fields(belongs):
        if not known.get(key):
            yield key
        inner = declared(belongs)[key].base
        if dataclasses.is_dataclass(inner):
            yield from (f"{key}.{name}" for name in undescribed(inner))


@pytest.mark.parametrize(("kind", "name"), OWNERS)
def test_every_field_has_a_meaning(kind, name):
    assert not list(undescribed(owner(kind, name)))


@pytest.fixture(scope="module")
def config():
    names = {"model": "gpt", "task": "language_modeling", "optimizer": None, "train": None}
    return complete(ConfigDict({kind: section(kind, name) for kind, name in names.items()}))


def test_the_config_lists_its_sections(config):
    text = help_on("config", config)
    assert "config.model (gpt)" in text and "config.lora" in text


def test_a_section_shows_flags_values_and_meanings(config):
    config = config.copy_and_resolve_references()
    config.task.context = 77
    text = help_on("config.task", config)
    assert "--config.task.context=77\n      T, the length of the training windows." in text
    assert "--config.task.tokenizer.*" in text


def test_a_section_inside_a_section(config):
    assert "--config.model.compute.dtype='float32'" in help_on("config.model.compute", config)


def test_one_field(config):
    text = help_on("config.optimizer.learning_rate", config)
    assert text.startswith("  --config.optimizer.learning_rate=")
    assert text.count("--config") == 1


def test_without_a_config_the_names_are_listed():
    assert "language_modeling" in help_on("config.task", None)
    assert "--config.train.seed=" in help_on("config.train", None)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("config.tsk", '"tsk": did you mean "task"'),
        ("config.task.contxt", '"context"'),
        ("config.task.context.more", "no fields"),
        ("config.task.tokenizer.sze", '"size"'),
    ],
)
def test_what_is_not_there(config, path, said):
    with pytest.raises(ConfigError, match=said):
        help_on(path, config)
