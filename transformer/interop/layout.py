"""Which arrays of a published checkpoint hold which of our parameters, in both directions.

A family writes down a list of entries. Reading and writing checkpoints both follow it, so that what
comes in can go out again, bit for bit.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from transformer.errors import DataError

Shape = tuple[int, ...]
Arrays = Sequence[np.ndarray]


class Entry(NamedTuple):
    """Some of our parameters, and the arrays that hold them elsewhere; mostly one of each.

    Attributes:
        paths: of our parameters.
        names: of their arrays.
        shapes: of their arrays.
        read: their arrays to our parameters.
        write: our parameters to their arrays.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    read: Callable[[Arrays], Arrays]
    write: Callable[[Arrays], Arrays]


def single(
    path: str, name: str, shape: Shape, theirs: Shape, order: Sequence[int] | None = None
) -> Entry:
    """One parameter in one array with the same numbers, laid out another way.

    Args:
        path: of our parameter.
        name: of their array.
        shape: ours.
        theirs: theirs.
        order: of the axes of their array in ours; None leaves it. What remains is a reshape.
    """
    order = tuple(range(len(theirs))) if order is None else tuple(order)
    turned = tuple(theirs[axis] for axis in order)
    back = tuple(np.argsort(order))

    def read(arrays: Arrays) -> Arrays:
        return [arrays[0].transpose(order).reshape(shape)]

    def write(arrays: Arrays) -> Arrays:
        return [arrays[0].reshape(turned).transpose(back)]

    return Entry((path,), (name,), (theirs,), read, write)


def matrix(path: str, name: str, shape: Shape, num_inputs: int = 1) -> Entry:
    """A kernel, of which PyTorch keeps the transposed matrix: outputs first.

    Args:
        path: of our parameter.
        name: of their array.
        shape: ours, inputs first; heads have an axis of their own here.
        num_inputs: how many axes the inputs have.
    """
    theirs = (math.prod(shape[num_inputs:]), math.prod(shape[:num_inputs]))
    return single(path, name, shape, theirs, (1, 0))


def vector(path: str, name: str, shape: Shape) -> Entry:
    """A bias or a scale; heads have an axis of their own here."""
    return single(path, name, shape, (math.prod(shape),))


def same(path: str, name: str, shape: Shape) -> Entry:
    """What both keep alike."""
    return single(path, name, shape, shape)


def usual(path: str, shape: Shape, modules: Mapping[str, str]) -> Entry | None:
    """The entry of a parameter by the name of its module, as PyTorch's modules call theirs.

    Args:
        path: of our parameter: module and kind, such as `blocks/layer_3/attention/query/kernel`.
        shape: ours.
        modules: our modules to theirs, with `{}` for the number of the layer.

    Returns:
        None if the module is not among them.
    """
    module, _, kind = path.rpartition("/")
    number = re.search(r"layer_(\d+)", module)
    general = re.sub(r"layer_\d+", "layer_{}", module)
    if general not in modules:
        return None
    name = modules[general].format(number[1] if number else "")
    if kind == "kernel":
        # Attention's output is the one kernel with two axes of inputs.
        return matrix(
            path, f"{name}.weight", shape, 2 if module.endswith("attention/output") else 1
        )
    if kind == "embedding":
        return same(path, f"{name}.weight", shape)
    return vector(path, f"{name}.{'bias' if kind == 'bias' else 'weight'}", shape)


def entries(
    shapes: Mapping[str, Shape],
    modules: Mapping[str, str],
    others: Mapping[str, Entry] | None = None,
) -> list[Entry]:
    """The entries of all parameters of a model.

    Args:
        shapes: of our parameters, by path.
        modules: see `usual`.
        others: entries of parameters that are kept in another way, by path.

    Raises:
        KeyError: if a parameter has no place, which is a mistake of the family's.
    """
    found = {}
    for path, shape in shapes.items():
        entry = (others or {}).get(path) or usual(path, shape, modules)
        if entry is None:
            raise KeyError(path)
        found[entry.names] = entry
    return list(found.values())


def parameter_shapes(
    model: Any, use_all: Callable, *inputs: Any, stacks: tuple[str, ...] = ("num_layers",)
) -> dict[str, Shape]:
    """The shapes of all parameters that a model can have, by path.

    Args:
        model: with its layers unrolled.
        use_all: calls whatever has parameters.
        *inputs: of `use_all`.
        stacks: fields that say how many layers there are, in the order of the stacks' names.
    """
    # Layers are alike: one tells the shapes of all.
    one = {**dict.fromkeys(stacks, 1), "scan_layers": False}
    init = functools.partial(model.clone(**one).init, method=use_all)
    shapes: Any = jax.eval_shape(init, jax.random.key(0), *inputs)["params"]
    flat: Any = traverse_util.flatten_dict(nn.meta.unbox(shapes), sep="/")
    found = sorted({path.split("/layer_0/")[0] for path in flat if "/layer_0/" in path})
    counts = dict(zip(found, (getattr(model, field) for field in stacks), strict=True))
    return {
        path.replace("/layer_0/", f"/layer_{layer}/"): tuple(leaf.shape)
        for path, leaf in flat.items()
        for layer in range(counts.get(path.split("/layer_0/")[0], 1))
    }


def read_entries(
    wanted: Iterable[Entry], arrays: Mapping[str, Any], names: Mapping[str, str], where: Any
) -> Iterator[tuple[str, np.ndarray]]:
    """Our parameters by path in float32, one entry at a time.

    Args:
        wanted: all of whose arrays are there.
        arrays: by their names in the file, read when asked for.
        names: what entries call an array to its name in the file.
        where: the folder or file, for messages.

    Raises:
        DataError: if an array has another shape, or holds whole numbers.
    """
    for entry in wanted:
        found = []
        for name, shape in zip(entry.names, entry.shapes, strict=True):
            array = arrays[names[name]]
            if array.shape != shape:
                raise DataError(
                    f"{where}: {names[name]} has the shape {list(array.shape)}, and the config "
                    f"asks for {list(shape)}."
                )
            # Of NumPy or of `ml_dtypes`: bytes of one kind, read as the other, are any numbers.
            if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
                raise DataError(
                    f"{where}: {names[name]} holds numbers of the kind {array.dtype}, and weights "
                    f"are fractions."
                )
            found.append(np.asarray(array, np.float32))
        for path, parameter in zip(entry.paths, entry.read(found), strict=True):
            yield path, np.ascontiguousarray(parameter)


def write_entries(
    wanted: Iterable[Entry], params: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Their arrays by name, one entry at a time.

    Args:
        wanted: all of whose parameters are there.
        params: by path.
    """
    for entry in wanted:
        found = entry.write([np.asarray(params[path]) for path in entry.paths])
        yield from zip(entry.names, found, strict=True)


def require_sizes(
    where: Any, shapes: Mapping[str, Shape], sizes: Mapping[str, Mapping[str, int]]
) -> None:
    """Refuses arrays of other sizes than a config says, naming its keys.

    Args:
        where: the config, for messages.
        shapes: of the arrays, by name; those that are missing are not looked at.
        sizes: of each axis of an array by what says it, by the array's name.

    Raises:
        DataError: naming the first array.
    """
    for name, axes in sizes.items():
        if name in shapes and tuple(shapes[name]) != tuple(axes.values()):
            said = ", ".join(f"{key} {size}" for key, size in axes.items())
            raise DataError(f"{where} has {said}, and {name} is an array of {list(shapes[name])}.")


def require_layers(
    where: Any, shapes: Mapping[str, Shape], counts: Mapping[str, tuple[str, int]]
) -> None:
    """Refuses stacks of another depth than a config says, naming its key.

    Args:
        where: the config, for messages.
        shapes: of the arrays, by name.
        counts: the key and what it says, by what stands before a layer's number in names.

    Raises:
        DataError: naming the first key.
    """
    for before, (key, count) in counts.items():
        found = {name[len(before) :].split(".")[0] for name in shapes if name.startswith(before)}
        if found and len(found) != count:
            raise DataError(f"{where} has {key} {count}, and there are arrays of {len(found)}.")
