"""Maps arrays of published checkpoints to our parameters, in both directions.

A family defines a list of entries. Reading and writing both use it, so that an imported checkpoint
can be exported again, bit for bit.
"""

import abc
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from transformer.errors import DataError
from transformer.nn.compute import Compute
from transformer.nn.layouts import layer_name, layer_number
from transformer.types import Params

Shape = tuple[int, ...]
Arrays = Sequence[np.ndarray]


class Stored(Mapping[str, np.ndarray]):
    """Arrays in files, by name; each is read on every access, so memory holds only those in use."""

    @abc.abstractmethod
    def shape(self, name: str) -> Shape:
        """The shape of an array, without reading the array."""


class Entry(NamedTuple):
    """Some of our parameters and the published arrays that hold them; mostly one of each.

    Attributes:
        paths: the paths of our parameters; none for arrays that are computed from the config.
        names: the names of the published arrays.
        shapes: the shapes of the published arrays.
        read: converts published arrays to our parameters.
        write: converts our parameters to published arrays.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    read: Callable[[Arrays], Arrays]
    write: Callable[[Arrays], Arrays]


def single(
    path: str, name: str, shape: Shape, theirs: Shape, order: Sequence[int] | None = None
) -> Entry:
    """One parameter and one array with the same numbers in another layout.

    Args:
        path: the path of our parameter.
        name: the name of the published array.
        shape: our shape.
        theirs: the published shape.
        order: the order of the published axes in ours; None keeps it. The rest is a reshape.
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
    """A kernel that PyTorch stores as the transposed matrix, outputs first.

    Args:
        path: the path of our parameter.
        name: the name of the published array.
        shape: our shape, inputs first, with a separate axis for heads.
        num_inputs: number of input axes.
    """
    theirs = (math.prod(shape[num_inputs:]), math.prod(shape[:num_inputs]))
    return single(path, name, shape, theirs, (1, 0))


def vector(path: str, name: str, shape: Shape) -> Entry:
    """A bias or a scale; our shape has a separate axis for heads."""
    return single(path, name, shape, (math.prod(shape),))


def same(path: str, name: str, shape: Shape) -> Entry:
    """A tensor stored identically on both sides."""
    return single(path, name, shape, shape)


def without_layer(path: str) -> tuple[str, int | None]:
    """Replaces the layer number in a path by `{}`, as in tables of families; returns both."""
    parts = path.split("/")
    numbers = [layer_number(part) for part in parts]
    found = next((number for number in numbers if number is not None), None)
    general = ("{}" if n is not None else part for n, part in zip(numbers, parts, strict=True))
    return "/".join(general), found


def usual(path: str, shape: Shape, modules: Mapping[str, str]) -> Entry | None:
    """The entry of a parameter in PyTorch's naming, found by the name of its module.

    Args:
        path: the path of our parameter, such as `blocks/layer_3/attention/query/kernel`.
        shape: our shape.
        modules: maps our modules to the published ones, with `{}` for the layer and its number.

    Returns:
        None if `modules` lacks the module.
    """
    module, _, kind = path.rpartition("/")
    general, number = without_layer(module)
    if general not in modules:
        return None
    name = modules[general].format("" if number is None else number)
    if kind == "kernel":
        # Attention's output is the only kernel with two input axes.
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
        shapes: the shapes of our parameters, by path.
        modules: see `usual`.
        others: entries of parameters that are stored differently, by path.

    Raises:
        KeyError: if a parameter has no entry, which is a bug of the family.
    """
    found = {}
    for path, shape in shapes.items():
        entry = (others or {}).get(path) or usual(path, shape, modules)
        if entry is None:
            raise KeyError(path)
        found[entry.names] = entry
    return list(found.values())


def parameter_shapes(
    model: nn.Module,
    use_all: Callable[..., object],
    *inputs: jax.Array | jax.ShapeDtypeStruct,
    depths: Mapping[str, int],
    traced: int = 1,
) -> dict[str, Shape]:
    """The shapes of all parameters that a model can have, by path.

    Args:
        model: the model, with unrolled layers.
        use_all: calls every module that has parameters.
        *inputs: the inputs of `use_all`.
        depths: the number of layers of each stack, by its field of the model and in the order of
            the stacks' names.
        traced: how many layers of each stack to trace. The last of them gives the shapes of all
            later layers.
    """
    few = {field: min(depth, traced) for field, depth in depths.items()}
    known = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs)
    flat = _traced_shapes(model.clone(**few, compute=Compute()), use_all, known)
    first = f"/{layer_name(0)}/"
    names = sorted({path.split(first)[0] for path in flat if first in path})
    found = {}
    for path, leaf in flat.items():
        found[path] = tuple(leaf.shape)
        for name, field in zip(names, depths, strict=True):
            last = f"{name}/{layer_name(few[field] - 1)}/"
            if path.startswith(last):
                rest = path.removeprefix(last)
                for layer in range(few[field], depths[field]):
                    found[f"{name}/{layer_name(layer)}/{rest}"] = tuple(leaf.shape)
    return found


@functools.lru_cache(maxsize=16)
def _traced_shapes(
    model: nn.Module, use_all: Callable[..., object], inputs: tuple[jax.ShapeDtypeStruct, ...]
) -> Mapping[str, jax.ShapeDtypeStruct]:
    """The shapes of all parameters by path; several folders of one model are traced once."""
    init = functools.partial(model.init, method=use_all)
    shapes: Params = nn.meta.unbox(jax.eval_shape(init, jax.random.key(0), *inputs)["params"])
    return traverse_util.flatten_dict(shapes, sep="/")


def read_entries(
    wanted: Iterable[Entry],
    arrays: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    where: Path,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields our parameters by path in float32, one entry at a time.

    Args:
        wanted: entries whose arrays all exist.
        arrays: arrays by their names in the file, read on access.
        names: maps names in entries to names in the file.
        where: the folder or file, for messages.

    Raises:
        DataError: if an array has another shape, or holds integers.
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
            # Floats of NumPy or bfloat16 of `ml_dtypes`; other dtypes would be misread.
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
    """Yields the published arrays by name, one entry at a time.

    Args:
        wanted: entries whose parameters all exist.
        params: parameters by path.
    """
    for entry in wanted:
        found = entry.write([np.asarray(params[path]) for path in entry.paths])
        yield from zip(entry.names, found, strict=True)


def require_sizes(
    where: Path, shapes: Mapping[str, Shape], sizes: Iterable[tuple[str, int, str, int]]
) -> None:
    """Refuses sizes in a config that differ from the arrays.

    Args:
        where: the config, for messages.
        shapes: the shapes of the arrays, by name; missing arrays are ignored.
        sizes: the key and value of each size, and the array and axis that show it.

    Raises:
        DataError: names the first key and its array.
    """
    for key, value, name, axis in sizes:
        shape = shapes.get(name)
        if shape is not None and (len(shape) <= axis or shape[axis] != value):
            raise _contradicted(where, key, value, f"{name} is an array of {list(shape)}")


def require_counts(
    where: Path, shapes: Mapping[str, Shape], counts: Mapping[str, tuple[str, int]]
) -> None:
    """Refuses numbers of layers or experts that differ from the arrays.

    Args:
        where: the config, for messages.
        shapes: the shapes of the arrays, by name.
        counts: the key and its value, by the part of names before the number of a layer.

    Raises:
        DataError: names the first key.
    """
    for before, (key, count) in counts.items():
        found = {name[len(before) :].split(".")[0] for name in shapes if name.startswith(before)}
        if found and len(found) != count:
            raise _contradicted(where, key, count, f"there are arrays of {len(found)}")


def _contradicted(where: Path, key: str, value: int, there: str) -> DataError:
    return DataError(
        f"{where} has {key} {value} (a key that is left out has the publisher's default), and "
        f"{there}: is a file missing?"
    )


def require_heads(where: Path, heads: tuple[str, int], width: tuple[str, int]) -> None:
    """Refuses a number of heads that does not divide the width.

    Args:
        where: the config, for messages.
        heads: the key and the number of heads.
        width: the key and the width.

    Raises:
        DataError: names both keys.
    """
    if width[1] % heads[1]:
        raise DataError(
            f"{where} has {heads[0]} {heads[1]}, which must divide {width[0]}, {width[1]}."
        )
