"""Trains tiny models on meshes of eight simulated devices; prints what came out as JSON.

Run by test_meshes.py in a process of its own: the number of devices is fixed when JAX begins.
"""

import functools
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from transformer import sharding
from transformer.composition import config_fields, with_fields
from transformer.nn.compute import Compute
from transformer.ops.threefry import without_loop
from transformer.runs.evaluating import evaluate_run
from transformer.runs.opening import Run
from transformer.training.experiment import prepare
from transformer.training.feeding import Feeder
from transformer.training.programs import make_programs
from transformer.training.recipes import numbers_of
from transformer.training.sections import section
from transformer.training.validation import means, placed, validation_totals

STEPS = 4
ALL = {"data": 2, "fsdp": 2, "tensor": 2}
# Two slices, each of which has a copy; the axes are those of one slice.
SLICES = {"slices": 2, "fsdp": 2}
# Half as many devices wait for each other half as long.
TWO = {"fsdp": 2, "tensor": 2}
# Meshes with which validation is tried as well.
VALIDATED = ({}, {"data": 4}, TWO, ALL)
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
SHAPE = {"compute": Compute(scan_layers=True)}
RING = {"compute": Compute(scan_layers=True, attention="ring")}
DECODER = {"num_layers": 2, "num_heads": 4, "width": 32, "context": 16, **SHAPE}


def config_of(model, task, **mesh):
    config = ConfigDict()
    config.model, config.task = model, task
    config.optimizer = section("optimizer", learning_rate=1e-2, warmup="1 steps")
    config.train = section("train", duration=f"{STEPS} steps")
    config.mesh = section("mesh", **mesh)
    return config


def text(path):
    return section(
        "task",
        "language_modeling",
        path=str(path),
        context=16,
        batch_size=16,
        tokenizer={"kind": "byte"},
        # In three chunks of positions, whose gradients are added on each device.
        vocab_chunk=100,
    )


def jobs(path):
    """Model and task by name."""
    return {
        "gpt": (section("model", "gpt", **DECODER), text(path)),
        # The same with keys that go round a ring.
        "ring": (section("model", "gpt", **{**DECODER, **RING}), text(path)),
        "mixtral": (
            section(
                "model",
                "mixtral",
                **DECODER,
                feed_forward_width=32,
                num_experts=4,
                capacity_factor=1.5,
            ),
            text(path),
        ),
        "vaswani": (
            section(
                "model",
                "vaswani",
                vocab_size=1248,
                num_encoder_layers=2,
                num_decoder_layers=2,
                num_heads=4,
                width=32,
                feed_forward_width=64,
                **SHAPE,
            ),
            section(
                "task",
                "translation",
                embedded="reverse",
                num_pairs=200,
                sequence_length=3,
                batch_tokens=256,
                max_length=16,
                rows_multiple=8,
                # Two searches, after the losses that are compared.
                beam_size=1,
                extra_length=2,
            ),
        ),
        "vit": (
            section(
                "model",
                "vit",
                image_size=8,
                patch_size=2,
                num_layers=2,
                num_heads=4,
                width=32,
                pooling="mean",
                **SHAPE,
            ),
            section("task", "image_classification", preparation={"image_size": 8}, batch_size=32),
        ),
    }


def odd(task):
    """The data with few validation batches, whose number of rows no number of devices divides."""
    in_buckets = "rows_multiple" in config_fields(type(task))
    rows = "rows_multiple" if in_buckets else "validation_batch_size"
    return with_fields(task, **{rows: 45}).load(None)


def validated(experiment, programs, params):
    """Validation metrics of odd batches, as the loop has them."""
    totals = validation_totals(
        functools.partial(programs.evaluation_step, numbers_of(experiment)),
        odd(experiment.task).validation_batches(),
        sharding.batch_sharding(experiment.mesh),
        params,
    )
    return means(totals)


def evaluated(experiment, params):
    """The same, as evaluate.py has them: on all eight devices, whatever the mesh."""
    params = jax.device_get(params)
    run = Run(experiment.config, experiment.task, experiment.model, params, STEPS, Path())
    return evaluate_run(run, odd(experiment.task))


def trained(model, task, devices, **mesh):
    """Losses of some steps, and what there is to know of the program."""
    config = config_of(model.copy_and_resolve_references(), task, **mesh)
    make = sharding.Mesh.make
    sharding.Mesh.make = lambda self, chosen=None: make(self, jax.devices()[:devices])
    try:
        experiment = prepare(config)
    finally:
        sharding.Mesh.make = make
    batches = experiment.data.train_batches(seed=0, num_steps=STEPS)
    feeder = Feeder(batches, limit=1)
    stacks = sharding.batch_sharding(experiment.mesh, leading_axes=1)
    losses = []
    with jax.set_mesh(experiment.mesh):
        programs, numbers = make_programs(experiment), numbers_of(experiment)
        state, compiled = programs.new_state(jax.random.key(0)), {}
        for _ in range(STEPS):
            batch, count = feeder.take(1)
            batch = placed(batch, stacks)
            # Lengths of translations differ.
            shapes = str(jax.tree.map(lambda x: x.shape, batch))
            if shapes not in compiled:
                lowered = programs.steps.lower(state, batch, count, numbers)
                compiled[shapes] = lowered.compile()
            state, metrics = compiled[shapes](state, batch, count, numbers)
            losses.append(float(metrics["loss"][0]))
        program = next(iter(compiled.values())).as_text()
        validation = validated(experiment, programs, state.params) if mesh in VALIDATED else None
    if not mesh:
        everywhere = evaluated(experiment, state.params)
        validation = [validation, {name: everywhere[name] for name in validation}]
    first = jax.devices()[0]
    here = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves((state.params, state.optimizer))
        for shard in leaf.addressable_shards
        if shard.device == first
    )
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.optimizer)))
    shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(state.params)]
    gathered = [
        tuple(map(int, found.split(",")))
        for found in re.findall(r"= \w+\[([\d,]+)\][^=]* all-gather(?:-start)?\(", program)
    ]
    return {
        "losses": losses,
        "validation": validation,
        "fraction_here": here / whole,
        "collectives": _collectives(program),
        "gathered": gathered,
        "parameter_shapes": shapes,
    }


def random_bits():
    """The program that makes random bits of [64, 64] in four parts."""
    mesh = jax.sharding.Mesh(jax.devices()[:4], "x")
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))

    def draw(key):
        return jax.random.bits(without_loop(key), (64, 64))

    program = jax.jit(draw, out_shardings=rows).lower(jax.random.key(0)).compile().as_text()
    return {"program": program, "collectives": _collectives(program)}


def _collectives(program):
    return {name: len(re.findall(rf" {name}(?:-start)?\(", program)) for name in COLLECTIVES}


def main():
    path = Path(sys.argv[1])
    path.write_text("".join(f"{n} times {n} is {n * n}. " for n in range(400)))
    found = {"random bits": random_bits()}
    known = jobs(path)
    for name, mesh in json.loads(sys.argv[2]):
        devices = int(np.prod(list(mesh.values()))) if mesh else 1
        key = f"{name} " + " ".join(f"{axis}={size}" for axis, size in mesh.items())
        found[key.strip()] = trained(*known[name], devices, **mesh)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
