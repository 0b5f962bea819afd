"""Owners made of parts: fields side by side in a config, objects inside one another in code."""

import dataclasses
from typing import Annotated

import pytest
from ml_collections import ConfigDict

from transformer.composition import (
    FLAT,
    composed,
    config_fields,
    parts,
    value_of,
    values_of,
    with_fields,
)
from transformer.errors import ConfigError
from transformer.fields import declared, require_allowed
from transformer.limits import Count
from transformer.sections import completed, filled, made, paths
from transformer.traced import RateOrOff, traced_fields, with_numbers


@dataclasses.dataclass(frozen=True)
class Rows:
    size: Count = 4

    def check(self):
        if self.size == 13:
            raise ConfigError("config.x.size is 13.")


@dataclasses.dataclass(frozen=True)
class Files:
    path: str = ""
    rate: RateOrOff = 0.5
    rows: Annotated[Rows, FLAT] = Rows(8)


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclasses.dataclass(frozen=True)
class Owner:
    files: Annotated[Files, FLAT] = Files(path="here")
    inner: Inner = Inner()
    own: bool = False


VALUES = {"path": "here", "rate": 0.5, "size": 8, "inner": Inner(), "own": False}


def test_fields_of_parts_stand_beside_those_of_their_owner():
    assert dict(parts(Owner)) == {"files": Files}
    assert list(config_fields(Owner)) == list(declared(Owner)) == list(VALUES)
    assert values_of(Owner()) == VALUES
    assert paths(Owner) == ("path", "rate", "size", "inner", "inner.depth", "own")


def test_the_owner_gives_the_defaults():
    defaults = {name: field.default for name, field in config_fields(Owner).items()}
    assert defaults == VALUES
    assert config_fields(Files)["path"].default == ""


def test_a_config_makes_the_parts():
    section = filled(Owner, "config.x", {"size": 3, "inner": {"depth": 5}})
    assert section == ConfigDict(VALUES | {"size": 3, "inner": {"depth": 5}})
    assert made(Owner, "config.x", dict(section)) == Owner(Files("here", 0.5, Rows(3)), Inner(5))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"files": {"size": 3}}, "files"),
        ({"rows": 3}, "rows"),
        ({"size": 0}, r"config\.x\.size is 0"),
        ({"size": 13}, r"size is 13\."),
        ({"sise": 3}, '"size"'),
    ],
)
def test_what_a_config_cannot_say(given, said):
    with pytest.raises(ConfigError, match=said):
        made(Owner, "config.x", dict(filled(Owner, "config.x", given)))


@pytest.mark.parametrize("size", [0, 13])
def test_values_of_parts_are_checked(size):
    require_allowed("x", Owner())
    with pytest.raises(ConfigError, match=rf"config\.x\.size is {size}"):
        require_allowed("x", with_fields(Owner(), size=size))


def test_other_values_in_some_fields():
    changed = with_fields(Owner(), size=2, own=True, inner=Inner(3))
    assert changed == Owner(Files("here", 0.5, Rows(2)), Inner(3), True)
    assert composed(Owner, values_of(changed)) == changed
    assert value_of(changed, "size") == 2
    assert with_fields(changed) == changed
    with pytest.raises(TypeError, match="sise"):
        with_fields(changed, sise=2)


def test_numbers_of_parts_are_found_and_replaced():
    assert traced_fields(Owner()) == {"rate": 0.5}
    assert with_numbers(Owner(), {"rate": 0.25}).files.rate == 0.25
    assert traced_fields(with_fields(Owner(), rate=0.0)) == {}


def test_a_saved_section_is_completed():
    assert completed(Owner, {"size": 3}) == VALUES | {"size": 3, "inner": {"depth": 1}}


def test_a_part_without_a_default():
    @dataclasses.dataclass(frozen=True)
    class Bare:
        rows: Annotated[Rows, FLAT]

    with pytest.raises(TypeError, match=r"Bare\.rows is a part: give it a default"):
        config_fields(Bare)


def test_two_fields_of_one_name():
    @dataclasses.dataclass(frozen=True)
    class Twice:
        rows: Annotated[Rows, FLAT] = Rows()
        size: int = 1

    with pytest.raises(TypeError, match="Twice has two fields named size"):
        config_fields(Twice)
