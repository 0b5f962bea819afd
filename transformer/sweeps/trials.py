"""Trials: configs with overrides, checked, and named by a hash of their content."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from operator import getitem
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from transformer.errors import ConfigError, UserError
from transformer.fields import Declared, checked, unknown_name
from transformer.sections import flattened, paths
from transformer.sweeps.algebra import Overrides
from transformer.training.experiment import Experiment, prepare
from transformer.training.options import CHANGEABLE
from transformer.training.programs import program_key
from transformer.training.saved_arrays import size_in_bytes
from transformer.training.sections import (
    OPTIONAL_SECTIONS,
    SECTIONS,
    build,
    field_of,
    owner,
    section,
    with_optional_sections,
)
from transformer.training.shared import Shared
from transformer.types import Facts

# Fields of `config.train` that do not change the identity of a trial, unless they are swept.
_LOGISTICS = {f"train.{field}" for field in CHANGEABLE if field != "duration"}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        overrides: the overrides of this trial.
        config: the config with the overrides, references resolved.
        id: a hash of the config in hexadecimal, independent of the order of keys.
    """

    overrides: Overrides
    config: ConfigDict
    id: str

    def __str__(self) -> str:
        return described(self.overrides)


class Plan(NamedTuple):
    """The result of checking a trial.

    Attributes:
        program: the key of its compiled program; see `training.programs.program_key`.
        total_steps: number of steps of its run.
        size: bytes of its state, and the number of its parameters.
    """

    program: str
    total_steps: int
    size: tuple[int, int]


def described(overrides: Facts) -> str:
    """Short text of overrides: the last parts of their keys, and values."""
    short = (f"{key.split('.')[-1]}={shown_value(value)}" for key, value in overrides.items())
    return ", ".join(short) or "the config as it is"


def shown_value(value: object) -> str:
    """A value as text, with six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def make_trial(base: ConfigDict, overrides: Facts) -> Trial:
    """Creates the trial of a config with overrides.

    Raises:
        ConfigError: if a key does not exist or a value has the wrong type.
    """
    # References are not resolved yet, so fields that refer to an overridden field follow it.
    config: ConfigDict = deepcopy(base)
    for key in OPTIONAL_SECTIONS:
        if key not in config:
            config[key] = section(key)
    checked = {}
    for name, value in overrides.items():
        key = name.removeprefix("config.")
        checked[key] = checked_value(config, key, value)
        *sections, field = key.split(".")
        functools.reduce(getitem, sections, config)[field] = checked[key]
    config = with_optional_sections(config)
    flat = flattened(config)
    kept = {k: v for k, v in flat.items() if k in checked or k not in _LOGISTICS}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return Trial(checked, config, digest[:10])


def make_trials(base: ConfigDict, sweep: Iterable[object]) -> list[Trial]:
    """The distinct trials of a sweep, in order.

    Raises:
        ConfigError: names a trial whose config cannot be created; or if there are no trials.
    """
    trials: dict[str, Trial] = {}
    for number, overrides in enumerate(sweep, 1):
        if not isinstance(overrides, Mapping):
            raise ConfigError(
                f"a sweep yields dicts of overrides; number {number} of this one is {overrides!r}."
            )
        try:
            trial = make_trial(base, overrides)
        except ConfigError as error:
            raise _of_trial(error, number, overrides) from None
        trials.setdefault(trial.id, trial)
    if not trials:
        raise ConfigError("the sweep has no trials: one of its parts is empty.")
    return list(trials.values())


def check_trials(
    trials: Sequence[Trial], shared: Shared, devices: Sequence[jax.Device] | None = None
) -> list[Plan]:
    """Checks every trial as training would, before any trial begins.

    Args:
        trials: the trials of the sweep.
        shared: keeps the data for training.
        devices: the devices of a trial; None for all.

    Raises:
        UserError: the error that training would raise, with the name of the trial.
    """
    experiments: dict[str, Experiment] = {}
    plans = []
    for number, trial in enumerate(trials, 1):
        config: ConfigDict = trial.config
        try:
            for kind in SECTIONS:
                build(kind, config[kind])
            key = program_key(config)
            if key not in experiments:
                experiments[key] = prepare(config, devices=devices, shared=shared)
            # These may differ between trials of one program.
            clock = experiments[key].clock
            total = clock.steps(config.train.duration, key="train.duration")
            clock.steps(config.optimizer.warmup, key="optimizer.warmup", total=total)
            for field in ("log_every", "evaluate_every", "save_every"):
                clock.steps(config.train[field], key=f"train.{field}", total=total)
        except UserError as error:
            raise _of_trial(error, number, trial.overrides) from None
        shapes = experiments[key].shapes
        size = size_in_bytes(shapes)
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
        plans.append(Plan(key, total, (size, count)))
    return plans


def checked_value(config: ConfigDict, key: str, value: object) -> object:
    """Checks the type of a value and converts whole numbers to floats for float fields.

    Raises:
        ConfigError: if the key does not exist, or the value has another type.
    """
    field = require_field(config, key)
    if isinstance(value, np.generic):
        value = value.item()
    # Building the trial checks the limits later.
    return checked(f"config.{key}", value, dataclasses.replace(field, limits=(), entry=None))


def parsed_value(config: ConfigDict, key: str, text: str) -> object:
    """Parses a value from the command line.

    Raises:
        ConfigError: if the key does not exist, or the text is not a value of its type.
    """
    field = require_field(config, key)
    base, text = field.base, text.strip()
    if field.optional and text.lower() == "none":
        return None
    try:
        if base is bool:
            return {"true": True, "false": False}[text.lower()]
        if base in (int, float, str):
            return base(text)
    except (KeyError, ValueError):
        raise ConfigError(f"config.{key} cannot be {text!r}: expected {base.__name__}.") from None
    raise ConfigError(
        f"config.{key} is a {base.__name__}: commas cannot separate several of them. Write a sweep "
        f"into the config file."
    )


def parsed_grid(config: ConfigDict, texts: Iterable[str]) -> list[list[Overrides]]:
    """Parses sweeps of single keys, `KEY=VALUE,VALUE,...`.

    Raises:
        ConfigError: if one has another form, or a value does not fit its key.
    """
    sweeps = []
    for text in texts:
        key, equals, choices = text.removeprefix("config.").partition("=")
        if not equals or not choices:
            raise ConfigError(
                f"--grid={text}: write KEY=VALUE,VALUE,... such as "
                f"--grid=optimizer.learning_rate=1e-4,3e-4"
            )
        sweeps.append([{key: parsed_value(config, key, x)} for x in choices.split(",")])
    return sweeps


def require_field(config: ConfigDict, key: str) -> Declared:
    """The declaration of a field of a config.

    Args:
        config: the config of an experiment.
        key: the dotted key of the field, without `config.`.

    Raises:
        ConfigError: if the field does not exist or is a section.
    """
    kind, _, path = key.partition(".")
    if kind not in SECTIONS + OPTIONAL_SECTIONS:
        raise ConfigError(unknown_name("config", kind, SECTIONS + OPTIONAL_SECTIONS))
    name = config[kind].get("name") if kind in config else None
    known = paths(owner(kind, name))
    if path not in known:
        raise ConfigError(unknown_name(f"config.{kind}", path, known))
    inside = [other for other in known if other.startswith(f"{path}.")]
    if inside:
        raise ConfigError(
            f"config.{key} is a section: give one of its fields, {', '.join(inside)}."
        )
    return field_of(config, key)


def _of_trial(error: UserError, number: int, overrides: Facts) -> UserError:
    """The same error with the name of its trial."""
    shown = ", ".join(f"{key}={value!r}" for key, value in overrides.items())
    return type(error)(f"trial {number} ({shown or 'nothing overridden'}): {error}")
