"""The pickle in an archive of `torch.save`, read without unpickling.

To unpickle is to run a program, which may do anything. Here only the instructions occur that a dict
of tensors needs, names of Python stand for constants, and nothing is called: every other
instruction or name is refused.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from transformer.data.reading.json_text import shown

_DTYPES: dict[str, np.dtype] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch CharStorage": np.dtype("i1"),
    "torch ByteStorage": np.dtype("u1"),
    "torch BoolStorage": np.dtype("?"),
}
_ORDERED, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_MARK = object()


class Name(str):
    """A name of Python in a pickle: a constant."""


class Storage(NamedTuple):
    """Numbers in a file of the archive."""

    dtype: np.dtype
    key: str
    count: int


class Tensor(NamedTuple):
    """A part of a storage; places are counted in numbers, not in bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def state_dict(pickle: bytes) -> dict[str, Tensor]:
    """The tensors that the content of a `data.pkl` describes, by name.

    Raises:
        ValueError: if it is anything but a dict of tensors.
    """
    stack: list = []
    memo: dict[int, object] = {}
    try:
        for code, argument in _instructions(pickle):
            _STEPS[code](stack, memo, argument)
    except (KeyError, IndexError, TypeError, struct.error) as error:
        raise ValueError(f"its pickle is damaged: {error}") from None
    found = stack.pop()
    if stack or type(found) is not dict:
        raise ValueError("its pickle is no dict of tensors")
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"its pickle has {shown(name)}, which is no tensor")
    return found


def _instructions(pickle: bytes) -> Iterator[tuple[bytes, Any]]:
    """Each instruction and its argument, None if it has none, up to the one that ends them."""
    place, code = 0, b""
    while code != b".":
        code = pickle[place : place + 1]
        place += 1
        if code not in _STEPS:
            what = f"the instruction {code.hex()}" if code else "no end"
            raise ValueError(f"its pickle has {what}, which no dict of tensors needs")
        argument = None
        if code == b"c":
            # The names of a module and of what is in it, each on a line.
            end = pickle.index(b"\n", pickle.index(b"\n", place) + 1)
            argument = pickle[place:end].decode("ascii").replace("\n", " ")
            place = end + 1
        elif code in _ARGUMENTS:
            form = _ARGUMENTS[code]
            (argument,) = struct.unpack_from(form, pickle, place)
            place += struct.calcsize(form)
        if code in (b"X", b"\x8a"):
            content = pickle[place : place + argument]
            place += argument
            if len(content) < argument:
                raise ValueError("its pickle ends in an argument")
            is_text = code == b"X"
            argument = (
                content.decode() if is_text else int.from_bytes(content, "little", signed=True)
            )
        yield code, argument


# -------------------------------------------------- instructions: stack, memo and their argument


def _name(stack: list, memo: dict, text: str) -> None:
    if text not in (*_DTYPES, _ORDERED, _TENSOR, _PARAMETER):
        raise ValueError(f"its pickle names {shown(text)}, which no dict of tensors needs")
    stack.append(Name(text))


def _since_mark(stack: list) -> tuple:
    items = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return tuple(reversed(items))


def _short_tuple(size: int) -> Callable[[list, dict, object], None]:
    return lambda stack, memo, argument: stack.append(tuple(stack.pop() for _ in range(size))[::-1])


def _set(stack: list, items: Sequence) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # To hash anything else may take unbounded time.
        if type(stack[-1]) is not dict or type(key) is not str:
            raise ValueError("its pickle has an item that is none of a dict")
        stack[-1][key] = value


def _storage(stack: list, memo: dict, argument: object) -> None:
    kind, dtype, key, _, count = stack.pop()
    if kind != "storage" or type(dtype) is not Name or type(key) is not str:
        raise ValueError("its pickle has something else than a storage in a file")
    stack.append(Storage(_DTYPES[dtype], key, _sizes((count,))[0]))


def _call(stack: list, memo: dict, argument: object) -> None:
    """What three functions would give; nothing is called."""
    arguments, function = stack.pop(), stack.pop()
    if type(arguments) is not tuple or type(function) is not Name:
        raise ValueError("its pickle calls what is no function")
    if function == _ORDERED and not arguments:
        stack.append({})
    elif function == _PARAMETER and isinstance(arguments[0], Tensor):
        stack.append(arguments[0])
    elif function == _TENSOR and isinstance(arguments[0], Storage):
        storage, offset, shape, strides = arguments[:4]
        if len(shape) != len(strides):
            raise ValueError("its pickle has a tensor without shape")
        stack.append(Tensor(storage, _sizes((offset,))[0], _sizes(shape), _sizes(strides)))
    else:
        raise ValueError(f"its pickle calls {function} as no dict of tensors needs it")


def _build(stack: list, memo: dict, argument: object) -> None:
    """Drops attributes of a dict: the versions of its modules, which say nothing of tensors."""
    stack.pop()


def _sizes(values: object) -> tuple[int, ...]:
    if type(values) is not tuple or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        raise ValueError("its pickle has something else than sizes")
    return values


# The forms of arguments: of a text and of a long number those of its length.
_ARGUMENTS = {
    **dict.fromkeys((b"\x80", b"K", b"q", b"h", b"\x8a"), "<B"),
    **dict.fromkeys((b"r", b"j", b"X"), "<I"),
    b"M": "<H",
    b"J": "<i",
}
# What each instruction does; see the standard library's `pickletools` for their names.
_STEPS: dict[bytes, Callable[[list, dict, Any], object]] = {
    **dict.fromkeys(
        (b"X", b"J", b"K", b"M", b"\x8a"), lambda stack, memo, value: stack.append(value)
    ),
    **dict.fromkeys((b"q", b"r"), lambda stack, memo, place: memo.update({place: stack[-1]})),
    **dict.fromkeys((b"h", b"j"), lambda stack, memo, place: stack.append(memo[place])),
    **dict.fromkeys((b"\x80", b"."), lambda stack, memo, argument: None),
    b"N": lambda stack, memo, argument: stack.append(None),
    b"\x89": lambda stack, memo, argument: stack.append(False),
    b"\x88": lambda stack, memo, argument: stack.append(True),
    b"(": lambda stack, memo, argument: stack.append(_MARK),
    b"t": lambda stack, memo, argument: stack.append(_since_mark(stack)),
    b")": lambda stack, memo, argument: stack.append(()),
    **{code: _short_tuple(size) for size, code in enumerate((b"\x85", b"\x86", b"\x87"), 1)},
    b"}": lambda stack, memo, argument: stack.append({}),
    b"s": lambda stack, memo, argument: _set(stack, [*reversed((stack.pop(), stack.pop()))]),
    b"u": lambda stack, memo, argument: _set(stack, _since_mark(stack)),
    b"c": _name,
    b"Q": _storage,
    b"R": _call,
    b"b": _build,
}
