"""Toy sequence-to-sequence problems: random strings to copy, reverse or sort."""

import string
from random import Random

from transformer.errors import ConfigError
from transformer.fields import unknown_name

KINDS = ("copy", "reverse", "sort")


def sequence_pairs(
    kind: str,
    *,
    count: int,
    min_length: int,
    max_length: int,
    alphabet: str = string.ascii_lowercase,
    seed: int,
) -> list[tuple[str, str]]:
    """Random strings, each with its target.

    No string occurs twice before all strings of its length have occurred.

    Args:
        kind: one of `KINDS`; `sort` goes by code point.
        count: the number of pairs.
        min_length: the minimum length of the strings; lengths are uniform.
        max_length: the maximum length of the strings.
        alphabet: the characters, all equally likely.
        seed: the seed of lengths and characters.

    Raises:
        ConfigError: if the kind is unknown, the alphabet empty or the range of lengths impossible.
    """
    if kind not in KINDS:
        raise ConfigError(unknown_name("config.task.embedded", kind, KINDS))
    if not 1 <= min_length <= max_length:
        raise ConfigError(
            f"min_length is {min_length} and max_length {max_length}: the first is at least 1, the "
            f"second no less than the first."
        )
    if not alphabet:
        raise ConfigError("the alphabet is empty: give at least one character.")
    # Each character once; otherwise the number of strings would be wrong.
    characters = sorted(set(alphabet))
    random = Random(seed)
    # For each length the strings so far; once all have occurred, they may occur again.
    seen: dict[int, set[str]] = {}
    pairs = []
    while len(pairs) < count:
        length = random.randint(min_length, max_length)
        strings = seen.setdefault(length, set())
        text = "".join(random.choices(characters, k=length))
        while text in strings and len(strings) < len(characters) ** length:
            text = "".join(random.choices(characters, k=length))
        strings.add(text)
        pairs.append((text, _answer(kind, text)))
    return pairs


def _answer(kind: str, text: str) -> str:
    if kind == "reverse":
        return text[::-1]
    return "".join(sorted(text)) if kind == "sort" else text
