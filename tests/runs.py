"""What runs leave in their folders, for tests that compare them to the bit."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.sharding import SingleDeviceSharding

from tests.common import assert_trees_equal
from transformer.data.reading.text import IncomingLines
from transformer.training.checkpoints import ITEMS, Checkpoints
from transformer.training.metrics import read_metrics
from transformer.training.saved_arrays import fingerprints
from transformer.training.shared import Shared
from transformer.training.spending import KINDS, TIME

TIMING = {
    "step_time",
    "tokens_per_second",
    "mfu",
    "goodput",
    *(f"{kind}_time" for kind in KINDS),
}


class SharedPrograms(Shared):
    """Runs of one config are compiled once; each reads its data itself."""

    def get_or_make(self, key, make):
        return super().get_or_make(key, make) if key[0] == "programs" else make()


def logged(workdir: Path) -> list[dict]:
    """All metrics but those that depend on the clock."""
    return [
        {name: value for name, value in line.items() if name not in TIMING}
        for line in read_metrics(workdir)
        if line["split"] != TIME
    ]


def saved(workdir: Path, step: int | None = None) -> dict:
    """All items of one checkpoint, as they are on disk; of the last without a step."""
    place = SingleDeviceSharding(jax.local_devices()[0])
    with Checkpoints(workdir, read_only=True) as checkpoints:
        step = checkpoints.steps()[-1] if step is None else step
        wanted = {
            item: jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
                checkpoints.saved_shapes(step, item),
            )
            for item in ITEMS
            if (workdir / "checkpoints" / str(step) / item).is_dir()
        }
        return checkpoints.restore(step, wanted).state


def without_seals(workdir: Path) -> None:
    """Makes the checkpoints of a run what they were before there were seals, and losses."""
    for checkpoint in (workdir / "checkpoints").iterdir():
        if not checkpoint.is_dir():
            continue
        note = checkpoint / "metadata" / "metadata"
        state = saved(workdir, int(checkpoint.name))
        content = {
            "data_fingerprint": json.loads(note.read_text())["data_fingerprint"],
            "fingerprints": {item: fingerprints(tree) for item, tree in state.items()},
        }
        note.write_text(json.dumps(content))


def answered_as_they_come(answers: Callable[[IncomingLines], Iterator], *lines: str) -> list:
    """What is made of lines, of which each is written when the one before has its answer.

    If an answer had to wait for further lines, this would wait for ever.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as other:
        found, given = [], answers(IncomingLines(stream, "the input"))
        for line in lines:
            other.write(f"{line}\n".encode())
            found.append(next(given))
        other.close()
        assert not list(given)
    return found


def assert_same_run(workdir: Path, reference: Path, *, final: bool = True) -> None:
    """The same metrics, those of the end too if it was shown, and a checkpoint of the same bits."""
    ours, theirs = (
        [line for line in logged(folder) if final or line["split"] != "final"]
        for folder in (workdir, reference)
    )
    assert ours == theirs
    state = saved(workdir)
    assert {"params", "training"} <= state.keys()
    assert {"step", "optimizer", "key"} == state["training"].keys()
    assert_trees_equal(state, saved(reference))
