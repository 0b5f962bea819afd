"""Counts what a compiled program for a GPU does, from its text: kernels, bytes, matrix products.

Bytes are those that each kernel reads and writes at least, so a device moves more if its caches
hold little, and never less: divided by the bandwidth of memory they are a lower bound of time.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+)(?: \(.*\) -> .*)? \{$")
_INSTRUCTION = re.compile(r"^(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+(?:e\dm\d\w*)?)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|body|to_apply)=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_NAME = re.compile(r'op_name="([^"]*)"')
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
# Instructions that are no work of their own on the device.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "after-all")
# Instructions that change their first operand where it lies, and which one is written there.
_IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}
# Instructions of which a kernel computes only what their users need.
_PASSED_ON = ("bitcast", "convert", "slice", "dynamic-slice", "gather")
_RANDOM = ("threefry", "random_bits", "bernoulli", "_uniform")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: within its computation.
        shape: the text of its type.
        kind: `fusion`, `dot` and so on.
        operands: names.
        rest: attributes.
        is_root: whether it is the result of its computation.
    """

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool

    @property
    def called(self) -> str | None:
        """The computation that it calls."""
        found = _CALLED.search(self.rest)
        return found and found[1]

    @property
    def source(self) -> str:
        """Where in our program it comes from."""
        found = _NAME.search(self.rest)
        return found[1] if found else ""


@dataclasses.dataclass
class Counted:
    """What a program does in one step; loops without a known number of rounds count once.

    Attributes:
        instructions: of the whole text.
        random: those among them that make random numbers.
        kernels: how many are started.
        bytes: that they read and write.
        custom: how many custom calls are started, by target.
        products: FLOPs of matrix products outside of custom calls, by the dtype of their factors.
        heaviest: bytes by kernel and origin, the heaviest first.
        largest: the largest arrays that kernels write.
    """

    instructions: int = 0
    random: int = 0
    kernels: int = 0
    bytes: int = 0
    custom: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    products: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    heaviest: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    largest: list[str] = dataclasses.field(default_factory=list)


Computations = dict[str, dict[str, Instruction]]


def count(text: str) -> Counted:
    """Counts the kernels of a program.

    Args:
        text: `as_text()` of a program compiled for a GPU.
    """
    entry, computations = _parsed(text)
    found = Counted()
    for computation in computations.values():
        found.instructions += len(computation)
        for instruction in computation.values():
            found.random += any(word in instruction.source for word in _RANDOM)
    moved: collections.Counter = collections.Counter()
    written: dict[str, int] = {}
    for computation, instruction, times in _started(computations, entry, 1):
        size = times * _moved(computations, computation, instruction)
        found.kernels += times
        found.bytes += size
        moved[instruction.name, instruction.source[-90:]] += size
        for dtype, numbers in _arrays(instruction.shape):
            written[f"{dtype}{list(numbers)}"] = _size(dtype, numbers)
        if instruction.kind == "custom-call":
            target = _TARGET.search(instruction.rest)
            found.custom[target[1] if target else "?"] += times
        for inner, dot in _dots(computations, computation, instruction):
            dtype, flops = _product(inner, dot)
            found.products[dtype] += times * flops
    found.heaviest = [(size, *name) for name, size in moved.most_common(20)]
    found.largest = sorted(written, key=written.get, reverse=True)[:6]
    return found


def _parsed(text: str) -> tuple[str, Computations]:
    """The name of the first computation that runs, and all of them."""
    computations: Computations = {}
    entry, current = "", None
    for line in text.splitlines():
        begins = _COMPUTATION.match(line)
        if begins and not line.startswith(" "):
            current = computations.setdefault(begins[2], {})
            entry = begins[2] if begins[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line.strip())):
            root, name, shape, kind, rest = found.groups()
            inside, _, after = rest.partition(")")
            operands = tuple(re.findall(r"%([\w.\-]+)", inside))
            current[name] = Instruction(name, shape, kind, operands, after, bool(root))
    return entry, computations


def _started(
    computations: Computations, name: str, times: int
) -> Iterator[tuple[dict[str, Instruction], Instruction, int]]:
    """Instructions that are kernels, and how often each is started."""
    for instruction in computations[name].values():
        if instruction.kind == "while":
            rounds = _TRIPS.search(instruction.rest)
            body = re.search(r"body=%?([\w.\-]+)", instruction.rest)[1]
            yield from _started(computations, body, times * (int(rounds[1]) if rounds else 1))
        elif instruction.kind in ("call", "conditional", "async-start"):
            if instruction.called:
                yield from _started(computations, instruction.called, times)
        elif instruction.kind not in _FREE:
            yield computations[name], instruction, times


def _arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """The dtypes and sizes of an array, or of those in a tuple."""
    return [
        (dtype, tuple(map(int, filter(None, numbers.split(",")))))
        for dtype, numbers in _ARRAY.findall(shape)
    ]


def _size(dtype: str, numbers: tuple[int, ...]) -> int:
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
    return math.prod(numbers) * bits // 8


def _bytes(shape: str) -> int:
    return sum(_size(*array) for array in _arrays(shape))


def _moved(
    computations: Computations, computation: dict[str, Instruction], kernel: Instruction
) -> int:
    """Bytes that a kernel reads and writes."""
    read = [_bytes(computation[name].shape) for name in kernel.operands if name in computation]
    body = computations.get(kernel.called or "", {})
    if kernel.kind != "fusion" or not body:
        return sum(read) + _bytes(kernel.shape)
    written = _bytes(kernel.shape)
    total = 0
    for parameter in [each for each in body.values() if each.kind == "parameter"]:
        users = [each for each in body.values() if parameter.name in each.operands]
        part = min(1.0, sum(_part(body, parameter, user) for user in users))
        total += round(part * _bytes(parameter.shape))
    # A result that is changed in place is written where it changes.
    for each in body.values():
        if each.kind in _IN_PLACE:
            update = _bytes(body[each.operands[_IN_PLACE[each.kind]]].shape)
            written -= max(0, min(written, _bytes(each.shape)) - update)
    return total + written


def _part(body: dict[str, Instruction], array: Instruction, user: Instruction) -> float:
    """Which part of an array one of its users reads, from 0 to 1."""
    is_first = user.operands[0] == array.name
    if user.kind in _IN_PLACE and is_first:
        return 0.0
    if user.kind not in _PASSED_ON or not is_first:
        return 1.0
    part = min(1.0, _entries(user) / _entries(array))
    if user.is_root or user.kind == "gather":
        return part
    users = [each for each in body.values() if user.name in each.operands]
    return part * min(1.0, sum(_part(body, user, each) for each in users))


def _entries(instruction: Instruction) -> int:
    return sum(math.prod(numbers) for _, numbers in _arrays(instruction.shape))


def _dots(
    computations: Computations, computation: dict[str, Instruction], kernel: Instruction
) -> Iterator[tuple[dict[str, Instruction], Instruction]]:
    """The matrix products in a kernel."""
    if kernel.kind == "dot":
        yield computation, kernel
    body = computations.get(kernel.called or "", {}) if kernel.kind == "fusion" else {}
    for instruction in body.values():
        yield from _dots(computations, body, instruction)


def _product(computation: dict[str, Instruction], dot: Instruction) -> tuple[str, int]:
    """The dtype of the factors of a matrix product, and its FLOPs."""
    ((dtype, left),) = _arrays(computation[dot.operands[0]].shape)
    axes = [int(axis) for axis in _CONTRACTED.search(dot.rest)[1].split(",") if axis]
    ((_, result),) = _arrays(dot.shape)
    return dtype, 2 * math.prod(result) * math.prod(left[axis] for axis in axes)
