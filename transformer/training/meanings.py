"""What the fields of a config mean, from the docstrings of their owners (`--help=config`)."""

import dataclasses
import inspect
import re
import textwrap

from ml_collections import ConfigDict

from transformer.composition import config_fields, parts
from transformer.errors import ConfigError
from transformer.fields import declared, shown, unknown_name
from transformer.training.sections import OPTIONAL_SECTIONS, SECTIONS, choices, owner

_WIDTH = 100
_NAMED = ("model", "task")
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*)$")


def meanings(belongs: type) -> dict[str, str]:
    """The meaning of each field, from the `Attributes` of its class.

    What the owner says of a field goes before what its part says, or a class that it inherits from.

    Args:
        belongs: the owner of a section.
    """
    found: dict[str, str] = {}
    for part in parts(belongs).values():
        found |= meanings(part)
    for kind in reversed(belongs.__mro__):
        text = inspect.cleandoc(vars(kind).get("__doc__") or "")
        name = ""
        for line in text.partition("Attributes:\n")[2].splitlines():
            start = _ATTRIBUTE.match(line)
            if start:
                name = start[1]
                found[name] = start[2]
            elif name and line.startswith(" " * 8):
                found[name] += " " + line.strip()
            else:
                name = ""
    return found


def help_on(path: str, config: ConfigDict | None) -> str:
    """Describes a part of the config for the terminal.

    Args:
        path: `config`, a section such as `config.task`, a section inside, or a single field.
        config: the config of the command; None if it names none.

    Raises:
        ConfigError: if there is no such part.
    """
    kind, *inner = path.split(".")[1:] or [""]
    if not kind:
        return _sections(config)
    if kind not in SECTIONS + OPTIONAL_SECTIONS:
        raise ConfigError(unknown_name("config", kind, SECTIONS + OPTIONAL_SECTIONS))
    name = config[kind].get("name") if config is not None and kind in config else None
    if kind in _NAMED and name is None:
        return (
            f"config.{kind}.name is one of {', '.join(choices(kind))}.\n"
            f"Its fields depend on it: add --config=configs/NAME.py to this command."
        )
    belongs, where = owner(kind, name), f"config.{kind}"
    values = config.get(kind) if config is not None else None
    for position, key in enumerate(inner):
        fields = declared(belongs)
        if key not in fields:
            raise ConfigError(unknown_name(where, key, fields))
        if not dataclasses.is_dataclass(fields[key].base):
            if position < len(inner) - 1:
                raise ConfigError(f"{where}.{key} is a single value: it has no fields.")
            return "\n".join(_entry(belongs, where, key, values))
        belongs, where = fields[key].base, f"{where}.{key}"
        values = values.get(key) if values is not None else None
    title = f"{where}" + (f" of {name}" if name and not inner else "")
    entries = (
        line for key in config_fields(belongs) for line in _entry(belongs, where, key, values)
    )
    return "\n".join([title, *entries])


def _sections(config: ConfigDict | None) -> str:
    lines = ["The sections of a config; --help=config.SECTION describes their fields."]
    for kind in SECTIONS + OPTIONAL_SECTIONS:
        named = kind in _NAMED
        name = config[kind].get("name") if named and config is not None else None
        if named and name is None:
            what = f"one of {', '.join(choices(kind))}"
        else:
            what = inspect.cleandoc(owner(kind, name).__doc__ or "").partition("\n")[0]
        label = f"config.{kind}" + (f" ({name})" if name else "")
        lines += _wrapped(label, what)
    return "\n".join(lines)


def _entry(belongs: type, where: str, key: str, values: ConfigDict | None) -> list[str]:
    """The lines on one field: its flag, its value and its meaning."""
    kind = declared(belongs)[key]
    meaning = meanings(belongs).get(key, "")
    if dataclasses.is_dataclass(kind.base):
        return _wrapped(f"--{where}.{key}.*", f"{meaning} (--help={where}.{key})")
    value = values.get(key) if values is not None else config_fields(belongs)[key].default
    given = "" if value is dataclasses.MISSING else f"={shown(value)}"
    return _wrapped(f"--{where}.{key}{given}", meaning)


def _wrapped(label: str, text: str) -> list[str]:
    indent = " " * 6
    return [
        f"  {label}",
        *textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent),
    ]
