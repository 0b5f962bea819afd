"""What options of the training step do to the loss, and to the time of a step.

python benchmarks/options.py
python benchmarks/options.py --config=llama --steps=100 --options=fused_qkv,scan_layers

The same run, from the same parameters and with the same batches, with each option alone. Columns:
the loss of the last step and its difference from the run without the option, the largest
difference of all steps, the difference of the validation loss after the last step, and the
processor time of a step, taken in turns with the run without it. Options of bfloat16 are compared
with a run in bfloat16.

Rows named `one ulp` have no option: in them one kernel begins one unit of the last place of
float32 away. A difference as large as theirs is rounding that grew.
"""

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peaks import processor

# Fields of the config by the name of an option. A chunk of the vocabulary is a quarter of it.
_BFLOAT16 = {"model.compute.dtype": "bfloat16"}
OPTIONS: dict[str, dict[str, Any]] = {
    "vocab_multiple": {"model.compute.vocab_multiple": 128},
    "vocab_chunk": {"task.vocab_chunk": None},
    "vocab_chunk+vocab_multiple": {"task.vocab_chunk": None, "model.compute.vocab_multiple": 128},
    "fused_qkv": {"model.compute.fused_qkv": True},
    "scan_layers": {"model.compute.scan_layers": True},
    "remat full": {"model.compute.remat": "full"},
    "remat dots": {"model.compute.remat": "dots"},
    "blockwise": {"model.compute.attention": "blockwise"},
    "steps_per_dispatch 1": {"train.steps_per_dispatch": 1},
    "microbatches 2": {"train.microbatches": 2},
    "all of these": {
        "task.vocab_chunk": None,
        "model.compute.vocab_multiple": 128,
        "model.compute.fused_qkv": True,
        "model.compute.scan_layers": True,
        "model.compute.remat": "full",
        "model.compute.attention": "blockwise",
        "train.microbatches": 2,
    },
    "one ulp": {},
    "one ulp again": {},
    "bfloat16": _BFLOAT16,
    "bfloat16 cast_once": _BFLOAT16 | {"train.cast_once": True},
    "bfloat16 one ulp": _BFLOAT16,
    "bfloat16 parameters": _BFLOAT16 | {"train.parameter_dtype": "bfloat16"},
    "bfloat16 moments": _BFLOAT16
    | {"train.parameter_dtype": "bfloat16", "optimizer.moment_dtype": "bfloat16"},
}
PLAIN = "none"
# By name, how the run begins: otherwise than the plain one by one unit of the last place.
_NUDGES = {"one ulp": 1, "one ulp again": 2, "bfloat16 one ulp": 1}
# Steps that a run takes before it is the next one's turn.
TURN = 10


class Run:
    """A run that takes steps on demand.

    Attributes:
        name: of its option.
        losses: of the steps taken.
        seconds: of processor time a step, by turn.
    """

    def __init__(self, name: str, config: Any, begin: Any, data: Any) -> None:
        """Compiles nothing yet.

        Args:
            name: of the option.
            config: the whole config.
            begin: the parameters to begin with, in any layout.
            data: what the task reads.
        """
        from transformer.nn.layouts import laid_out_like
        from transformer.training import state as states
        from transformer.training.experiment import prepare
        from transformer.training.feeding import Feeder
        from transformer.training.programs import make_programs
        from transformer.training.recipes import placed_numbers

        self.name, self.losses, self.seconds = name, [], []
        self._experiment = prepare(config, data=data)
        self._programs = make_programs(self._experiment)
        self._numbers = placed_numbers(self._experiment)
        limit = self._experiment.train.steps_per_dispatch
        batches = data.train_batches(seed=0, num_steps=self._experiment.total_steps)
        self._feeder = Feeder(batches, limit=limit)
        self._limit = limit
        params = laid_out_like(begin, self._experiment.shapes.params)
        made = states.create(
            jax.tree.map(jnp.asarray, params),
            self._experiment.optimizer,
            jax.random.key(0),
            average=False,
            trained=self._experiment.trained,
            precision=self._experiment.precision,
        )
        self._state = jax.device_put(
            made, jax.tree.map(lambda x: x.sharding, self._experiment.shapes)
        )

    def take(self, count: int) -> None:
        """Takes steps; `count` is a multiple of those that a dispatch holds."""
        begun, losses = time.process_time(), []
        with jax.set_mesh(self._experiment.mesh):
            for _ in range(count // self._limit):
                stack, taken = self._feeder.take(self._limit)
                self._state, metrics = self._programs.steps(
                    self._state, stack, taken, self._numbers
                )
                losses.append(metrics["loss"])
            self.losses += [float(loss) for stack in losses for loss in np.asarray(stack)]
        self.seconds.append((time.process_time() - begun) / count)

    def validation_loss(self) -> float:
        """Of at most ten batches."""
        from transformer import sharding
        from transformer.training.validation import means, validation_totals

        step, numbers = self._programs.evaluation_step, self._numbers
        place = sharding.batch_sharding(self._experiment.mesh)
        batches = self._experiment.data.validation_batches()
        with jax.set_mesh(self._experiment.mesh):
            totals = validation_totals(
                lambda params, batch: step(numbers, params, batch),
                batches,
                place,
                self._state.params,
                10,
            )
        return means(totals)["loss"]

    def close(self) -> None:
        """Ends the reading of batches."""
        self._feeder.close()


@dataclasses.dataclass(frozen=True)
class Found:
    """A row of the table; differences are those from the run without the option."""

    option: str
    loss: float
    difference: float
    largest: float
    validation: float
    milliseconds: float
    time: float


def compared(run: Run, base: Run) -> Found:
    """The row of a run, beside the one that it is compared with."""
    pairs = zip(run.losses, base.losses, strict=True)
    # The first turn compiles.
    times = zip(run.seconds[1:], base.seconds[1:], strict=True)
    return Found(
        option=run.name,
        loss=run.losses[-1],
        difference=run.losses[-1] - base.losses[-1],
        largest=max(abs(one - other) for one, other in pairs),
        validation=run.validation_loss() - base.validation_loss(),
        milliseconds=statistics.median(run.seconds[1:]) * 1e3,
        time=statistics.median(one / other for one, other in times),
    )


def config_of(name: str, fields: dict[str, Any], steps: int, vocab_size: int) -> Any:
    """A config in float32 without dropout, with the fields of an option."""
    from accelerating.rows import Row

    common = {
        "model.dropout_rate": 0.0,
        "model.compute.dtype": "float32",
        "train.duration": f"{steps} steps",
        "train.steps_per_dispatch": TURN,
    }
    if "task.vocab_chunk" in fields:
        fields = fields | {"task.vocab_chunk": -(-vocab_size // 4)}
    return Row("", "", config=name, fields=common | fields).made_config(Path(), tiny=False)


def nudged(params: Any, seed: int) -> Any:
    """The parameters, with one kernel moved by one unit of the last place, up or down."""
    from transformer.training.selection import by_path, from_paths

    named = by_path(params)
    path = max(name for name in named if name.endswith("kernel"))
    kernel = np.asarray(named[path])
    ways = np.random.default_rng(seed).choice([-np.inf, np.inf], kernel.shape)
    return from_paths(named | {path: np.nextafter(kernel, ways.astype(kernel.dtype))})


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="gpt_char", help="a decoder of configs/")
    parser.add_argument("--steps", type=int, default=200, help=f"a multiple of {TURN}")
    parser.add_argument("--options", default=",".join(OPTIONS), help="names with commas between")
    parser.add_argument("--json", type=Path, help="a file for all that is known")
    options = parser.parse_args()
    names = options.options.split(",")
    if not set(names) <= set(OPTIONS) or options.steps % TURN:
        parser.error(f"choose from {', '.join(OPTIONS)}; --steps is a multiple of {TURN}.")

    from transformer.runtime import prepare_process

    prepare_process()
    from transformer.training.experiment import prepare

    plain = prepare(config_of(options.config, {}, options.steps, vocab_size=1))
    begin = jax.device_get(jax.jit(plain.create)(jax.random.key(0)).params)
    begins = [begin, nudged(begin, seed=0), nudged(begin, seed=1)]
    vocab_size = plain.model.vocab_size

    def run(name: str) -> Run:
        fields = OPTIONS.get(name, {})
        config = config_of(options.config, fields, options.steps, vocab_size)
        return Run(name, config, begins[_NUDGES.get(name, 0)], plain.data)

    bases = dict.fromkeys(_base(name) for name in names)
    runs = {name: run(name) for name in (*bases, *(name for name in names if name not in bases))}
    for _ in range(options.steps // TURN):
        for one in runs.values():
            one.take(TURN)
    print(f"{options.config}, {options.steps} steps, {processor()}")
    print(
        f"{'':30}{'loss':>11}{'difference':>12}{'largest':>10}{'validation':>12}{'ms':>8}{'time':>7}"
    )
    rows = [compared(one, runs[_base(name)]) for name, one in runs.items()]
    for row in rows:
        print(
            f"{row.option:30}{row.loss:11.7f}{row.difference:12.1e}{row.largest:10.1e}"
            f"{row.validation:12.1e}{row.milliseconds:8.1f}{row.time:6.2f}x"
        )
    if options.json:
        found = {"config": options.config, "steps": options.steps}
        rows = [dataclasses.asdict(row) for row in rows]
        options.json.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n", "utf-8")
    for one in runs.values():
        one.close()


def _base(name: str) -> str:
    """The run that another is compared with."""
    return "bfloat16" if name.startswith("bfloat16") else PLAIN


if __name__ == "__main__":
    main()
