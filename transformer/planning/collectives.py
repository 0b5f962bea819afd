"""Counts the collective operations between devices in the text of a compiled program.

Compilers write them differently. The rules of counting:

- an asynchronous collective (`all-gather-start`, `all-gather-done`) counts once, and so does one
  that is spread over several computations with the same channel. Permutations are never spread;
  all those of `jax.shard_map` have one channel;
- a collective inside a loop counts as often as the loop runs, if the text says how often: in the
  compiler's note, or as the constant to which the loop counter is compared. Other loops count once,
  among them the outermost one, over the steps of a dispatch;
- an `all-reduce` in a computation called `all-reduce-scatter` is the TPU's form of a
  `reduce-scatter`.

Everything else counts as the kind that is written. Over many devices the TPU compiler writes some
gathers and scatters as `all-reduce`, whose traffic is then an upper bound.
"""

import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_WIDTHS = {"pred": 1, "token": 0, "bf16": 2}
_HEADER = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_EXCHANGE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\((.*)")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+)")
_NOTED = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
_CONSTANT = re.compile(r"^\s*%?([\w.\-]+) = [su]\d+\[\][^ ]* constant\((\d+)\)")
_COMPARISON = re.compile(
    r"ROOT .* compare\((.*?), (?:[su]\d+\[\][^ ]* )?%?([\w.\-]+)\), .*direction=LT"
)
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\]|mesh\[(.*?)\] \{(.*?)\})")
_MESH_AXIS = re.compile(r"('\w+')=(\d+)")
_PART_OF_AXIS = re.compile(r"('\w+')(?::\(\d+\)(\d+))?")


class Exchange(NamedTuple):
    """All collectives of one kind in one step.

    Attributes:
        count: how many there are.
        bytes: size of their results on one device.
        moved: the minimum number of bytes that one device must receive for them.
    """

    count: int
    bytes: int
    moved: int


def collectives(program: str) -> dict[str, Exchange]:
    """The collectives in which one device takes part in a step, by kind.

    Args:
        program: optimised HLO as text.
    """
    bodies = _computations(program)
    times = _times(bodies)
    found: dict[str, Exchange] = dict.fromkeys(KINDS, Exchange(0, 0, 0))
    seen: set[str] = set()
    for name, lines in bodies.items():
        for line in lines:
            match = _EXCHANGE.search(line)
            if match is None or not times[name]:
                continue
            channel = _CHANNEL.search(line)
            if channel is not None and match[2] != "collective-permute":
                if channel[1] in seen:
                    continue
                seen.add(channel[1])
            kind, size, moved = _measured(match, name)
            old, often = found[kind], times[name]
            found[kind] = Exchange(
                old.count + often, old.bytes + often * size, old.moved + often * moved
            )
    return {kind: exchange for kind, exchange in found.items() if exchange.count}


def _computations(program: str) -> dict[str, list[str]]:
    """The lines of each computation; the entry computation also has the empty name."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in program.splitlines():
        match = _HEADER.match(line)
        if match:
            lines = []
            bodies[match[1]] = lines
            if line.startswith("ENTRY"):
                bodies[""] = lines
        elif line != "}":
            lines.append(line)
    return {name: lines for name, lines in bodies.items() if name == "" or lines is not bodies[""]}


def _times(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in one run of the entry computation."""
    times = dict.fromkeys(bodies, 0)

    def visit(name: str, often: int) -> None:
        times[name] += often
        for line in bodies[name]:
            loop = _WHILE.search(line)
            inner = often * _rounds(line, bodies.get(loop[1], [])) if loop else often
            called = _CALLED.findall(line)
            for group in _BRANCHES.findall(line):
                called += [branch.strip().lstrip("%") for branch in group.split(",")]
            for other in called:
                if other in bodies:
                    visit(other, inner)

    if "" in bodies:
        visit("", 1)
    return times


def _rounds(line: str, condition: list[str]) -> int:
    noted = _NOTED.search(line)
    if noted:
        return int(noted[1])
    constants = {match[1]: int(match[2]) for match in map(_CONSTANT.match, condition) if match}
    for text in condition:
        match = _COMPARISON.search(text)
        if match and match[2] in constants:
            return constants[match[2]]
    return 1


def _measured(match: re.Match[str], computation: str) -> tuple[str, int, int]:
    """Kind, bytes of the result, and the minimum number of bytes that a device must receive."""
    shape, kind, begun, rest = match.groups()
    sizes = [_size(*array) for array in _ARRAY.findall(shape) if array[1] or not begun]
    # The result of a `-start` holds inputs, then outputs, and tokens of the runtime.
    if begun and kind != "all-reduce":
        sizes = sizes[len(sizes) // 2 :]
    size = sum(sizes)
    parts = _group_size(rest)
    if "all-reduce-scatter" in computation and kind == "all-reduce":
        # Each device keeps only its part, which the text slices out afterwards.
        kind, size = "reduce-scatter", size // max(1, parts)
    share = (parts - 1) / parts if parts else 1.0
    moved = {
        "all-gather": size * share,
        "all-reduce": 2 * size * share,
        "reduce-scatter": size * (parts - 1 if parts else 1),
        "all-to-all": size * share,
        "collective-permute": size,
    }
    return kind, size, round(moved[kind])


def _group_size(rest: str) -> int:
    """How many devices take part in a collective; 0 if the text does not say."""
    match = _GROUPS.search(rest)
    if match is None:
        return 0
    if match[1]:
        return len(match[1].split(","))
    if match[2]:
        return int(match[2])
    sides = dict(_MESH_AXIS.findall(match[3]))
    return math.prod(int(part or sides[axis]) for axis, part in _PART_OF_AXIS.findall(match[4]))


def _size(dtype: str, shape: str) -> int:
    bits = re.search(r"\d+", dtype.removeprefix("bf"))
    width = _WIDTHS.get(dtype, int(bits[0]) / 8 if bits else 0)
    return math.ceil(width * math.prod(int(side) for side in shape.split(",") if side))
