"""Values that hardly anybody means, as text of a command line, for each kind of field."""

import math
import random

from absl import flags
from ml_collections.config_flags.tuple_parser import TupleParser

from transformer.errors import ConfigError
from transformer.fields import Declared, checked
from transformer.limits import OneOf, Place, Real, Whole, Written

HALF = "caf\udce9"  # As Python gives an argument that is not UTF-8.
DIGITS = ("²", "١٢", "１２", "Ⅻ", "½")  # noqa: RUF001 - that is what they are.
NO_NUMBERS = (
    "",
    " ",
    "x",
    "None",
    "wide",
    "1..2",
    "1,5",
    "--1",
    "0x10",
    "1e",
    "12a",
    HALF,
    *DIGITS,
)
NO_NUMBERS += ("[1", "(", "'", "{}", "[[[[", "9" * 5000, "日本", "\t", "%s", "1\n2", "$HOME")
WHOLE = ("1.5", "1e3", "nan", "inf", "-inf", "True", "1.0", "1_000", "007", " 7 ", "+3", "-0")
WHOLE += ("0", "-1", "-2", "-5", "1", "2", str(10**20), str(2**31), str(2**63), str(-(2**63)))
REAL = ("nan", "-nan", "inf", "-inf", "1e400", "-1e400", "1e-400", "-0.0", "0", "-1", "-1e-9", "1")
REAL += ("1.5", "0.5", "2", "1e39", "1e-40", "1_0.5", ".5", "5.", "0.999999999", "1e18", "100")
BOOLS = ("", "maybe", "2", "-1", "None", "yes", "TRUE", "0", "1", "f", "nan", HALF, *DIGITS)
DURATIONS = ("", "0", "0 steps", "0%", "0 epochs", "-1 steps", "1e400", "1e400 steps", "nan steps")
DURATIONS += ("inf", "200%", "101%", "-5%", "%", "1__0 steps", "1_ steps", "² steps", "١ steps")  # noqa: RUF001
DURATIONS += (
    "soon",
    "3 days",
    "1 2 steps",
    "9" * 400,
    "1e30 tokens",
    HALF,
    "10 % of it",
    "steps 3",
)
DURATIONS += ("5 Steps", "2 steps\n", "1e-9 steps", "100%", "1 step", "3 epochs", "10%")
TEXTS = (
    "",
    " ",
    "x",
    HALF,
    "日本",
    "a" * 5000,
    "(",
    "[",
    "*",
    "a=b",
    "a=1,b",
    "%s",
    "\n",
    "\t",
    "=",
)
TEXTS += (
    "best",
    "last:0",
    "0",
    "none",
    "None",
    "-1",
    "../x",
    "{}",
    "\\",
    "?P<",
    "a=nan",
    "x=1e400",
)
PATHS = (
    "missing",
    "/proc/x",
    "/",
    ".",
    "/dev/null",
    "/proc/self/mem",
    "x" * 300,
    "x/" * 3000,
    HALF,
)
PATHS += (
    "~",
    "~nobody/x",
    "a\nb",
    "a,b",
    ",",
    ";",
    "loop",
    "file/below",
    "bpe",
    "byte",
    " ",
    "日本",
)
PATHS += ("dir", "empty.txt", "binary.json", "empty.json", "a.json", "a.txt", "a.model", "fifo")
TUPLES = (
    "",
    "()",
    "(",
    "1",
    "(1,",
    "(1,'a')",
    "('a',)",
    "x",
    "[[1]]",
    "{}",
    "nan",
    "(nan,)",
    "(-1,)",
)
TUPLES += (
    "(1e400,)",
    "(0,)",
    "(1,2,3,4)",
    f"({'1,' * 2000})",
    f"({10**20},)",
    "((1,),)",
    "None",
    "0.5",
)
TUPLES += ("[" * 200, HALF, *DIGITS)


def odd_text(field: Declared, source: random.Random) -> str:
    """Text for a field, most often wrong: of another type, outside of its limits, or just at them.

    Args:
        field: what is declared of it.
        source: of what is drawn.
    """
    return str(source.choice(_choices(field)))


def _choices(field: Declared) -> list:
    if field.base in (bool, tuple):
        return [*(BOOLS if field.base is bool else TUPLES)]
    ends: list = []
    for limit in field.limits:
        if isinstance(limit, Whole):
            ends += [limit.least - 1, limit.least, limit.most, limit.most + 1, 2 * limit.most]
        if isinstance(limit, Real):
            ends += [limit.least, limit.most, limit.least - 1e-6, limit.most + 1e-6]
            ends += [math.nextafter(limit.most, math.inf), limit.most * 1.1]
        if isinstance(limit, OneOf):
            name = limit.names[0]
            ends += [f"{name}x", name.upper(), name[:-1], f" {name}", *limit.names]
    if field.base in (int, float):
        # The ends of its own range as often as all the rest.
        return [*NO_NUMBERS, *(WHOLE if field.base is int else REAL), *(3 * ends)]
    if any(isinstance(limit, Place) for limit in field.limits):
        return [*PATHS]
    written = any(isinstance(limit, Written | OneOf) for limit in field.limits)
    return [*(TEXTS if written else DURATIONS), *(3 * ends)]


PARSERS = {
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    bool: flags.BooleanParser(),
    tuple: TupleParser(),
    str: flags.ArgumentParser(),
}


def is_legal(field: Declared, text: str) -> bool:
    """Whether the field itself may have the value that is written so.

    Args:
        field: what is declared of it.
        text: as on a command line.
    """
    try:
        checked("it", PARSERS[field.base].parse(text), field)
    except (ConfigError, ValueError, TypeError, MemoryError, RecursionError):
        return False
    return True
