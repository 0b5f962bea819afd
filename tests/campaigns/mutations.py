"""What can go wrong with a file: single bits, cut ends, and values that nobody expects.

All that is random comes from a generator that is passed in.
"""

import gzip
import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Mutation(NamedTuple):
    """A changed file.

    Attributes:
        content: its bytes; None deletes it.
        what: was done, in words.
        key: in JSON, the key that was changed, dots between levels.
        also: another key that was changed.
        believed: in JSON, why no reader may take its new value for one of the old kind; or empty.
        other: in JSON, whether it has another value, which is not null.
        numbers: whether only numbers of arrays were changed, which nobody can notice.
    """

    content: bytes | None
    what: str
    key: str = ""
    also: str = ""
    believed: str = ""
    other: bool = False
    numbers: bool = False


_DEEP, _LONG = "[" * 100_000 + "]" * 100_000, "a" * 300_000
# JSON texts, by what stands for them in descriptions.
VALUES = {
    **{text: text for text in ("null", "true", "false", "0", "-1", "1", "3", "2.0", "0.5", "-0.5")},
    **{text: text for text in ("1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e308")},
    **{text: text for text in ("1e-320", "1e39", "1000000", "4000000000", "4294967296")},
    **{text: text for text in ("2147483648", "9223372036854775807", "9223372036854775808")},
    **{text: text for text in ("-9223372036854775809", '""', '"x"', '"12"', '"../../etc/passwd"')},
    **{text: text for text in ('"\\u0000"', '"\\ud800"', '"é漢😀"', "[]", "[1]", '["a"]', "[[]]")},
    **{text: text for text in ("{}", '{"a": 1}', '{"0": null}', '["a", "a"]', "[1, 2, 3]")},
    "100,000 brackets": _DEEP,
    "200 objects": '{"a":' * 200 + "1" + "}" * 200,
    "a long text": f'"{_LONG}"',
    "a long name": f'"{"n" * 300}"',
    "5,000 digits": "7" * 5000,
    "60 digits": "7" * 60,
    "100,001 numbers": "[" + ",".join(["1"] * 100_001) + "]",
}
_MARK = "@@value@@"


def of_bytes(source: random.Random, content: bytes) -> Mutation:
    """Changes some bytes, whatever they mean."""
    change = source.choice(
        [_flipped, _flipped, _flipped, _cut, _deleted, _inserted, _repeated, _replaced]
    )
    return change(source, content) if content else Mutation(b"\0", "one NUL byte")


def _flipped(source: random.Random, content: bytes) -> Mutation:
    count = source.choice([1, 1, 1, 8])
    changed, places = bytearray(content), []
    for _ in range(count):
        place, bit = source.randrange(len(content)), source.randrange(8)
        changed[place] ^= 1 << bit
        places.append(f"{place}.{bit}")
    return Mutation(bytes(changed), f"bits {', '.join(places)} flipped")


def _cut(source: random.Random, content: bytes) -> Mutation:
    place = source.choice([0, source.randrange(len(content)), len(content) - 1])
    return Mutation(content[:place], f"cut at byte {place}")


def _deleted(source: random.Random, content: bytes) -> Mutation:
    place, count = source.randrange(len(content)), source.choice([1, 1, 4, 100])
    return Mutation(content[:place] + content[place + count :], f"{count} bytes out at {place}")


def _inserted(source: random.Random, content: bytes) -> Mutation:
    place = source.randrange(len(content) + 1)
    new = source.choice(
        [b"\0", b"\xff", b"\n", b'"', b"\xef\xbb\xbf", b"{", b"]", source.randbytes(8)]
    )
    return Mutation(content[:place] + new + content[place:], f"{new!r} in at {place}")


def _repeated(source: random.Random, content: bytes) -> Mutation:
    place = source.randrange(len(content))
    part = content[place : place + source.choice([1, 16, 1000])]
    return Mutation(content[:place] + part + content[place:], f"{len(part)} bytes twice at {place}")


def _replaced(source: random.Random, content: bytes) -> Mutation:
    name, make = source.choice(
        [
            ("a byte-order mark in front", lambda: b"\xef\xbb\xbf" + content),
            ("as UTF-16", lambda: content.decode("utf-8", "replace").encode("utf-16")),
            ("compressed", lambda: gzip.compress(content)),
            ("white space", lambda: b" \n"),
            ("a number", lambda: b"12"),
            ("an empty list", lambda: b"[]"),
            ("an empty object", lambda: b"{}"),
            ("a NUL behind", lambda: content + b"\0"),
            ("brackets without end", lambda: b"[" * 200_000),
            ("random bytes", lambda: source.randbytes(300)),
        ]
    )
    return Mutation(make(), name)


class Known(NamedTuple):
    """What other files say, whatever one key of one file says.

    Attributes:
        special: tokens that are special.
        positions: the longest text that the model reads.
    """

    special: frozenset[str] = frozenset()
    positions: float = math.inf


_NOTHING = Known()


def of_json(source: random.Random, content: bytes, known: Known = _NOTHING) -> Mutation:
    """Changes a value, a key or the order of a JSON file.

    Args:
        source: of randomness.
        content: of the file.
        known: what other files say.
    """
    root = json.loads(content)
    holder, key, path = _place(source, root)
    if holder is None:
        return of_bytes(source, content)
    name, value = source.choice(list(VALUES.items()))
    how = source.choice(["set"] * 8 + ["delete", "twice", "swap", "rename"])
    if how == "delete":
        del holder[key]
        return Mutation(_dumped(root), f"{path} deleted", path)
    if how == "swap":
        _, other = source.choice(_entries(holder))
        holder[key], holder[other] = holder[other], holder[key]
        return Mutation(_dumped(root), f"{path} swapped with {other}", path, str(other))
    if how == "rename" and isinstance(holder, dict):
        new = source.choice(["é漢", f"{key}s", "", "\0", str(key).upper()])
        holder[new] = holder.pop(key)
        return Mutation(_dumped(root), f"{path} renamed to {new!r}", path)
    if how == "twice" and isinstance(holder, dict):
        holder[_MARK] = 0
        text = _dumped(root).decode("utf-8")
        text = text.replace(f'"{_MARK}": 0', f"{json.dumps(key)}: {value}")
        return Mutation(text.encode("utf-8", "surrogatepass"), f"{path} again: {name}", path)
    believed, other = _kinds(
        key, holder[key], value, known if key == "extra_ids" else _with_sentinels(known, root)
    )
    holder[key] = _MARK
    text = _dumped(root).decode("utf-8").replace(f'"{_MARK}"', value)
    content = text.encode("utf-8", "surrogatepass")
    return Mutation(content, f"{path} set to {name}", path, "", believed, other)


def _kinds(key: Any, old: Any, text: str, known: Known) -> tuple[str, bool]:
    """Why a value may not be taken for one of the kind of another, and whether it is another."""
    try:
        new = json.loads(text)
    except (ValueError, RecursionError):
        return "it is no JSON", True
    if isinstance(new, float) and not math.isfinite(new):
        return "it is no number", True
    kinds: dict[type, tuple[type, ...]] = {
        bool: (bool,),
        # Some write these as floats.
        int: (int, float) if key in ("model_max_length", "query_pre_attn_scalar") else (int,),
        float: (int, float),
        # Special tokens are texts or objects.
        str: (str, dict),
    }
    # Lists are often another way to say the same.
    right = (*kinds.get(type(old), (type(new),)), list, type(None))
    if type(new) not in right:
        return f"a {type(new).__name__} is no {type(old).__name__}", True
    return "", new is not None and not _means_the_same(key, old, new, known)


def _with_sentinels(known: Known, root: Any) -> Known:
    """With those that T5's class makes itself, if this is a file of its settings."""
    count = root.get("extra_ids", 0) if isinstance(root, dict) else 0
    return known._replace(special=known.special | {_sentinel(index) for index in range(count)})


def _sentinel(index: int) -> str:
    return f"<extra_id_{index}>"


def _means_the_same(key: Any, old: Any, new: Any, known: Known) -> bool:
    """Whether nothing has to change where one value stands instead of another."""
    if key == "eos_token_id" and [old] == new:
        # Where texts end: a token, or a list of such.
        return True
    if key in ("additional_special_tokens", "extra_special_tokens") and new in ([], {}):
        tokens = list(old.values()) if isinstance(old, dict) else old
        return all((t["content"] if isinstance(t, dict) else t) in known.special for t in tokens)
    if key == "extra_ids" and type(new) is int:
        # The class adds none that is there.
        added = range(min(old, new), max(old, new))
        return all(_sentinel(index) in known.special for index in added)
    if key == "model_max_length" and isinstance(new, int | float):
        return min(old, new) >= known.positions
    return new == old and type(new) is type(old)


def _dumped(root: Any) -> bytes:
    return json.dumps(root, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _entries(holder: Any) -> list[tuple[Any, Any]]:
    keys = holder if isinstance(holder, dict) else range(len(holder))
    return [(holder, key) for key in keys]


def _place(source: random.Random, root: Any) -> tuple[Any, Any, str]:
    """Some place in an object, mostly near its top."""
    holder, key, path = None, None, []
    inner = root
    while isinstance(inner, dict | list) and inner:
        holder = inner
        key = source.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        path.append(str(key))
        inner = inner[key]
        if source.random() < 0.5:
            break
    return holder, key, ".".join(path)


def of_safetensors(source: random.Random, content: bytes) -> Mutation:  # noqa: PLR0911
    """Changes what a file says of its arrays, so that it is still JSON of the right length."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + size], content[8 + size :]
    how = source.choice(["json"] * 6 + ["length", "dtype", "shape", "offsets", "again", "data"])
    found = json.loads(header)
    names = [name for name in found if name != "__metadata__"]
    name = source.choice(names)
    if how == "length":
        new = source.choice([0, 1, size - 1, size + 1, 1 << 31, 1 << 40, 1 << 63, 2**64 - 1])
        return Mutation(struct.pack("<Q", new) + content[8:], f"header of {new} bytes")
    if how == "data":
        place = source.randrange(len(data))
        changed = bytearray(data)
        changed[place] ^= 1 << source.randrange(8)
        what = f"bit of byte {place} of the arrays flipped"
        return Mutation(content[: 8 + size] + bytes(changed), what, numbers=True)
    if how == "dtype":
        kind = source.choice(["F16", "BF16", "F64", "I32", "I64", "U8", "BOOL", "F8_E4M3", "X", ""])
        found[name]["dtype"] = kind
        return _packed(json.dumps(found).encode(), data, f"{name} is of {kind}")
    if how == "shape":
        shape = source.choice([[], [1], [0], [2**40, 2**40], [-1], [1] * 100_001, [2.0], ["3"]])
        found[name]["shape"] = shape
        return _packed(json.dumps(found).encode(), data, f"{name} is {str(shape)[:40]}")
    if how == "offsets":
        other = source.choice(names)
        found[name]["data_offsets"] = source.choice(
            [found[other]["data_offsets"], [0, 2**63], [2**63, 2**64], [8, 4], [-8, 0], [0]]
        )
        return _packed(json.dumps(found).encode(), data, f"{name} where {other} is, or nowhere")
    if how == "again":
        other = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        again = source.choice([other, found[source.choice(names)]])
        text = json.dumps(found)[:-1] + f", {json.dumps(name)}: {json.dumps(again)}}}"
        return _packed(text.encode(), data, f"{name} again: {again}")
    mutated = of_json(source, header)
    assert mutated.content is not None
    return _packed(mutated.content, data, f"header: {mutated.what}")


def _packed(header: bytes, data: bytes, what: str) -> Mutation:
    return Mutation(struct.pack("<Q", len(header)) + header + data, what)


_NUMBERS = [0, 1, -1, 2, 7, 2**15, 10**6, 2**31 - 1, -(2**31), 4 * 10**9, 2**62, 2**63, 2**64 - 1]


def of_words(source: random.Random, content: bytes, size: int, end: int) -> Mutation:
    """Puts another whole number of 4 or 8 bytes somewhere before a place."""
    letter = {4: "<I", 8: "<Q"}[size]
    place = source.randrange(max(1, min(end, len(content)) - size))
    number = source.choice(_NUMBERS) % 2 ** (8 * size)
    new = struct.pack(letter, number)
    return Mutation(
        content[:place] + new + content[place + size :], f"{number} of {size} bytes at {place}"
    )


def of_scores(source: random.Random, content: bytes) -> Mutation:
    """Makes a float32 after the mark of a SentencePiece score something else."""
    places = [place for place in range(len(content) - 5) if content[place] == 0x15]
    place = source.choice(places)
    number = source.choice([np.nan, np.inf, -np.inf, 1e38, -1e38, 0.0])
    new = struct.pack("<f", number)
    return Mutation(content[: place + 1] + new + content[place + 5 :], f"score {number} at {place}")


METADATA: dict[str, Any] = {
    "text": "x",
    "0": 0,
    "7": 7,
    "2^32 - 1": 2**32 - 1,
    "true": True,
    "NaN": float("nan"),
    "inf": float("inf"),
    "-1.0": -1.0,
    "1e38": 1e38,
    "texts": ["a", "b"],
    "numbers": [1, 2],
    "none": None,
    "2^63": struct.pack("<IQ", 10, 1 << 63),
    "-2^63": struct.pack("<Iq", 11, -(1 << 63)),
    "a float64": struct.pack("<Id", 12, float("nan")),
    "list in list": struct.pack("<IIQ", 9, 9, 1),
    "2^62 numbers": struct.pack("<IIQ", 9, 4, 1 << 62),
    "2^62 texts": struct.pack("<IIQ", 9, 8, 1 << 62),
    "2^62 letters": struct.pack("<IQ", 8, 1 << 62),
    "no UTF-8": struct.pack("<IQ", 8, 2) + b"\xff\xfe",
}


def of_gguf(
    source: random.Random, write: Callable[..., bytes], metadata: dict, tensors: dict
) -> Mutation:
    """Writes a file with another value of some metadata, or another array.

    Args:
        source: of randomness.
        write: metadata and arrays to the content of a file.
        metadata: by name.
        tensors: by name.
    """
    if source.random() < 0.7:
        name = source.choice([*metadata, "general.alignment", "llama.expert_count", "split.count"])
        what, value = source.choice(list(METADATA.items()))
        changed = {**metadata, name: value}
        changed = {key: value for key, value in changed.items() if value is not None}
        return Mutation(write(changed, tensors), f"{name}: {what}")
    name = source.choice(list(tensors))
    array = tensors[name]
    what, value = source.choice(
        [
            ("missing", None),
            ("turned", np.ascontiguousarray(array.T)),
            ("of one row more", np.concatenate([array, array[:1]])),
            ("of 2^62 numbers", ((1 << 62,), 0, b"")),
            ("of 2^40 x 2^40", ((1 << 40, 1 << 40), 0, b"")),
            ("of half precision", (array.shape, 1, array.astype("<f2").tobytes())),
            ("of an unknown kind", (array.shape, 99, b"")),
            ("without axes", ((), 0, b"")),
        ]
    )
    changed = {key: value for key, value in {**tensors, name: value}.items() if value is not None}
    return Mutation(write(metadata, changed), f"{name}: {what}")
