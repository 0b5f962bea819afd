"""Our side of each row, in a separate process."""

import dataclasses
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from floors import hidden_flops

from accelerating.clock import measure, report
from accelerating.rows import ROOT, Row

# The arrays of a batch of tokens that the model reads.
_READ = ("tokens", "source", "target")


@dataclasses.dataclass(frozen=True)
class Job:
    """The job of a worker.

    Attributes:
        row: the row of the table.
        tiny: whether to use the small sizes for a CPU.
        warm: runs only up to the first step, with compiled programs on disk.
        folder: the folder with the files of `inputs`, also for all output.
        started: the start of the process, as `time.time()`.
        sizes: see `Row.sizes`.
    """

    row: Row
    tiny: bool
    warm: bool
    folder: Path
    started: float
    sizes: dict[str, Any]

    @property
    def seconds(self) -> float:
        """How long to measure one thing."""
        return 0.3 if self.tiny else 4.0

    def setting(self, name: str) -> Any:
        """A value of the row's settings."""
        return self.row.setting(name, self.tiny)


def training(job: Job) -> None:
    """Training steps as `scripts/train.py` compiles them, without the loop around them."""
    from transformer.runtime import prepare_process

    prepare_process()
    import jax

    from transformer.training.experiment import prepare
    from transformer.training.programs import make_programs
    from transformer.training.recipes import placed_numbers
    from transformer.training.sections import build

    config = job.row.made_config(job.folder, job.tiny)
    began = time.time()
    data = build("task", config.task).load(None)
    experiment = prepare(config, data=data)
    stacks = _stacks(experiment, job.setting("dispatches"))
    # The text is processed only once, so this is not part of the time to the first step.
    reading = time.time() - began
    programs, numbers = make_programs(experiment), placed_numbers(experiment)
    with jax.set_mesh(experiment.mesh):
        state = programs.new_state(jax.random.key(0))

        def work(times: int, stacks: list = stacks) -> None:
            nonlocal state
            for _ in range(times):
                for batches, count in stacks:
                    state, metrics = programs.steps(state, batches, count, numbers)
            jax.block_until_ready((state, metrics))

        work(1, stacks[:1])
        first = time.time() - job.started - reading
        report(job.row.title, first=first, reading=reading)
        work(1)
        shapes = {str(jax.tree.map(np.shape, batches)) for batches, _ in stacks}
        report(job.row.title, shapes=len(shapes), all_shapes=time.time() - job.started - reading)
        if job.warm:
            return
        steps = sum(count for _, count in stacks)
        report(job.row.title, **_work_of(job, experiment, stacks))
        found = measure(work, seconds=job.seconds, units=steps)
    attention = experiment.model.chosen_attention(*experiment.task.example_inputs(experiment.model))
    report(job.row.title, **found, **_memory(), attention=attention)


def _stacks(experiment: Any, dispatches: int) -> list[tuple[Any, int]]:
    """The batches of the first calls of the compiled step, on the device."""
    from transformer import sharding
    from transformer.training.feeding import Feeder
    from transformer.training.validation import placed

    limit = experiment.train.steps_per_dispatch
    batches = experiment.data.train_batches(seed=0, num_steps=dispatches * limit)
    place = sharding.batch_sharding(experiment.mesh, leading_axes=1)
    feeder = Feeder(batches, limit=limit)
    try:
        taken = [feeder.take(limit) for _ in range(dispatches)]
        return [(placed(stack, place), count) for stack, count in taken]
    finally:
        feeder.close()


def _work_of(job: Job, experiment: Any, stacks: list[tuple[Any, int]]) -> dict[str, Any]:
    """Items and FLOPs of a step, on average, and the shapes of all batches.

    `flops_causal` leaves out pairs that a causal mask hides.
    """
    import jax

    steps = sum(count for _, count in stacks)
    items = flops = hidden = 0.0
    shapes = []
    for batches, count in stacks:
        one = {k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in batches.items()}
        read = [one[name].shape for name in _READ if name in one]
        if job.row.item == "images":
            items += count * one["images"].shape[0]
        else:
            items += count * sum(math.prod(shape) for shape in read)
        shapes.append(read)
        flops += count * experiment.flops_per_step(one)
        hidden += count * _hidden_flops(experiment.model, read)
    return {
        "items": items / steps,
        "flops": flops / steps,
        "flops_causal": (flops - hidden) / steps,
        "batches": shapes,
    }


def _hidden_flops(model: Any, read: list[tuple[int, ...]]) -> float:
    """FLOPs of the pairs that causal self-attention hides, forward and backward."""
    layers = getattr(model, "num_decoder_layers", None)
    if layers is None:
        from transformer.nn.decoder import DecoderOnly

        layers = model.num_layers if isinstance(model, DecoderOnly) else 0
    head_dim = getattr(model, "head_dim", None) or model.width // model.num_heads
    rows, length = read[-1] if read else (0, 0)
    return 3 * hidden_flops(rows, length, model.num_heads * head_dim, layers)


def _memory() -> dict[str, float]:
    """Peak bytes of the device; empty on a CPU, which does not report them."""
    import jax

    statistics = jax.local_devices()[0].memory_stats() or {}
    return {key: statistics[key] for key in ("peak_bytes_in_use",) if key in statistics}


def decoding(job: Job) -> None:
    """Greedy generation with a cache, for several batch sizes."""
    from transformer.runtime import prepare_process

    prepare_process()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from transformer.decoding.sample import generate
    from transformer.ops.logits import Sampling
    from transformer.training.sections import build

    model = build("model", job.row.made_config(job.folder, job.tiny).model)
    tokens = jnp.zeros((1, 8), jnp.int32)
    params = jax.jit(lambda key: nn.meta.unbox(model.init(key, tokens)["params"]))(
        jax.random.key(0)
    )
    read, new = job.setting("prompt"), job.setting("new")
    count = sum(x.size for x in jax.tree.leaves(params))
    before = job.started
    for rows in job.setting("batches"):
        line = f"{job.row.title}, batch {rows}"
        prompts = list(np.random.default_rng(0).integers(model.vocab_size, size=(rows, read)))

        def work(times: int, prompts: list = prompts) -> None:
            for _ in range(times):
                chunks = generate(
                    model,
                    params,
                    prompts,
                    max_new_tokens=new,
                    sampling=Sampling(temperature=0),
                    seed=0,
                    chunk=new,
                )
                assert sum(chunk.shape[1] for chunk in chunks) == new

        work(1)
        report(line, first=time.time() - before)
        if not job.warm:
            # Each token reads all parameters, and the filled part of the cache.
            cached = rows * (read + new / 2) * 2 * model.num_layers * model.width
            size = jnp.dtype(model.compute.dtype).itemsize
            found = measure(work, seconds=job.seconds, units=new, rounds=3)
            report(line, **found, **_memory(), items=rows, bytes=size * (count + cached))
        before = time.time()


def attention(job: Job) -> None:
    """Causal attention alone, forward and backward, with each available implementation."""
    from transformer.runtime import prepare_process

    prepare_process()
    import jax
    import jax.numpy as jnp

    from transformer.ops.attention import dot_product_attention
    from transformer.ops.masks import causal

    names = ("cudnn", "blockwise", "einsum") if jax.default_backend() == "gpu" else ()
    names = names or ("blockwise", "einsum")
    heads, head_dim = job.setting("heads")
    dtype = "float32" if job.tiny else "bfloat16"

    def gradient(implementation: str) -> Callable[..., Any]:
        def loss(query: Any, key: Any, value: Any) -> Any:
            attended = dot_product_attention(
                query, key, value, mask=causal(), implementation=implementation
            )
            return jnp.sum(jnp.square(attended.astype(jnp.float32)))

        return jax.jit(jax.grad(loss, (0, 1, 2)))

    before = job.started
    for length in job.setting("lengths"):
        rows = job.setting("tokens") // length
        shape = (rows, length, heads, head_dim)
        keys = jax.random.split(jax.random.key(0), 3)
        arrays = [jax.random.normal(key, shape, dtype) for key in keys]
        # Forward two products, backward five of the same size.
        flops = 7 * 2 * rows * length**2 * heads * head_dim
        for name in names:
            line = f"attention, {rows} x {length:,}, {name}"
            run = gradient(name)

            def work(times: int, run: Any = run, arrays: list = arrays) -> None:
                for _ in range(times):
                    found = run(*arrays)
                jax.block_until_ready(found)

            try:
                work(1)
            except Exception as error:  # The next implementation may work.
                report(line, failed=f"{type(error).__name__}: {str(error)[:300]}")
                continue
            report(line, first=time.time() - before)
            if not job.warm:
                found = measure(work, seconds=job.seconds / 8)
                report(line, **found, items=rows * length, flops=flops, flops_causal=flops / 2)
            before = time.time()


def loop(job: Job) -> None:
    """`scripts/train.py` as people run it; a step lasts from one report to the next."""
    from transformer.training.metrics import read_metrics

    steps, workdir = job.setting("steps"), job.folder / "loop"
    command = [sys.executable, str(ROOT / "scripts/train.py")]
    command += job.row.flags(job.folder, job.tiny)
    command += [f"--config.train.duration={steps} steps", f"--workdir={workdir}"]
    # Only once at the end, after the last measured step.
    command += [f"--config.train.{name}={steps} steps" for name in ("evaluate_every", "save_every")]
    command += ["--config.train.log_every=1 steps", "--config.train.validation_batches=1"]
    command += ["--config.task.sample_length=0", "--config.train.tensorboard=False"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [line for line in read_metrics(workdir) if line["split"] == "train"]
    found = sorted(line["step_time"] * 1e3 for line in lines[len(lines) // 2 : -1])
    quarter, last = len(found) // 4, len(found) - 1
    report(
        job.row.title,
        ms=found[len(found) // 2],
        low=found[quarter],
        high=found[last - quarter],
        items=job.sizes["batch_size"] * job.sizes["context"],
        total=time.time() - job.started,
    )


def sweep(job: Job) -> None:
    """`scripts/sweep.py` in three ways: whole processes, from an empty cache to the report."""
    from argparse import Namespace

    from sweep import swept

    trials, steps = job.setting("trials"), job.setting("steps")
    options = Namespace(
        trials=trials,
        steps=steps,
        size=job.setting("size"),
        path=str(job.folder / "source.txt"),
    )
    base = None
    ways = {"one after another": "none", "lax.map": "scan", "vmap": "vmap"}
    for name, vectorize in ways.items():
        line = f"{trials} trials of {steps} steps, {name}"
        folder = job.folder / f"sweep_{vectorize}"
        folder.mkdir()
        seconds, _ = swept(vectorize)(options, folder)
        facts = {"ms": seconds * 1e3, "low": seconds * 1e3, "high": seconds * 1e3, "items": trials}
        report(line, **facts)
        base = base or facts
        report(line, "peer", **base, name="one after another")


JOBS: dict[str, Callable[[Job], None]] = {
    function.__name__: function for function in (training, decoding, attention, loop, sweep)
}


def device() -> dict[str, Any]:
    """The device and the versions of libraries."""
    import importlib.metadata
    import platform

    import jax

    from transformer.training.flops import peak_flops

    versions = {}
    for name in ("jax", "jaxlib", "flax", "torch", "transformers", "timm"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    one = jax.local_devices()[0]
    return {
        "kind": one.device_kind,
        "platform": one.platform,
        "count": jax.device_count(),
        "peak_flops": peak_flops(),
        "memory": (one.memory_stats() or {}).get("bytes_limit"),
        "python": platform.python_version(),
        "versions": versions,
    }
