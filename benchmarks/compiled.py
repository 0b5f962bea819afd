"""Compiles steps, writing and initial states for a GPU that is not here, and counts what comes out.

    pip install -e '.[plan-gpu]'
    JAX_PLATFORMS=cpu python benchmarks/compiled.py --json=compiled.json
    JAX_PLATFORMS=cpu python benchmarks/compiled.py --programs=gpt2 --heaviest=20 --text=folder

The programs are rows of `benchmarks/accelerator.py` with further options, each compiled in a
process of its own. Columns, of one step, one written token or one state before the first step:
instructions of the whole program and the part of them that makes random numbers; kernels that are
started, those of cuDNN's attention among them; gigabytes that kernels read and write at least, and
the milliseconds this takes at the full bandwidth of the device's memory; FLOPs of matrix products
without those of attention, in bfloat16 and in float32; GiB that the compiler plans, all arguments
included; processor seconds of tracing and compiling. A device also tries several kernels for each
product while it compiles, which is not seen here.
"""

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerating.inputs import write_inputs
from accelerating.kernels import count
from accelerating.rows import BFLOAT16, ROOT, ROWS, SCANNED
from accelerating.table import bandwidth_of

# The program that makes the state before the first step.
STATE = "initial state"
# Options of each row, by what the table calls them.
PROGRAMS: dict[str, dict[str, dict[str, Any]]] = {
    "gpt2": {
        STATE: {},
        "as shipped": {},
        "three products": {"model.compute.fused_qkv": False},
        "all logits at once": {"task.vocab_chunk": 0},
        "cast_once": {"train.cast_once": True},
        "bfloat16 parameters": {"train.parameter_dtype": "bfloat16"},
        "bfloat16 moments": BFLOAT16,
        "scanned": {"model.compute.scan_layers": True},
        "scanned, products kept": SCANNED,
        "several steps at once": {"train.steps_per_dispatch": 4},
    },
    "vit": {"as shipped": {}, "fused_qkv": {"model.compute.fused_qkv": True}},
    "transformer_base": {"as shipped": {}, "fused_qkv": {"model.compute.fused_qkv": True}},
    "multi30k": {"as shipped": {}, "without dropout": {"model.dropout_rate": 0.0}},
    "decoding": {
        "1 row": {},
        "8 rows": {},
        "64 rows": {},
    },
}
HEADER = (
    f"{'':48}{'code':>8}{'random':>7}{'kernels':>8}{'cuDNN':>6}{'GB':>8}{'ms':>7}"
    f"{'bf16':>9}{'f32':>9}{'GiB':>7}{'CPU':>7}"
)


def main() -> None:
    """Compiles and prints, each program as soon as it is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", default=",".join(PROGRAMS), help=", ".join(PROGRAMS))
    parser.add_argument("--options", help="names of options with semicolons between; default: all")
    parser.add_argument("--topology", default="h100:1", help="one GPU, as for scripts/plan.py")
    parser.add_argument("--heaviest", type=int, default=0, help="how many kernels to list")
    parser.add_argument("--json", type=Path, help="a file for one JSON object a line")
    parser.add_argument("--text", type=Path, help="a folder for the compiled programs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(_compiled(options)))
        return
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory(prefix="compiled") as folder:
        write_inputs(Path(folder), tiny=False)
        for name, title in _chosen(options):
            found = _of_worker(options, folder, f"{name}:{title}")
            if found is None:
                continue
            print(_line(f"{name}, {title}", found), flush=True)
            for size, kernel, source in found["heaviest"][: options.heaviest]:
                print(f"    {size / 1e9:8.2f} GB  {kernel}  {source}")
            if options.json:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"program": name, "options": title} | found) + "\n")


def _chosen(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The names of the programs, and of their options."""
    wanted = options.options.split(";") if options.options else None
    for name in options.programs.split(","):
        for title in PROGRAMS[name]:
            if wanted is None or title in wanted:
                yield name, title


def _of_worker(options: argparse.Namespace, folder: str, worker: str) -> dict[str, Any] | None:
    """What a process says of one program; None if it failed."""
    command = [sys.executable, __file__, f"--worker={worker}", f"--folder={folder}"]
    command += [f"--topology={options.topology}"]
    if options.text:
        command.append(f"--text={options.text.resolve()}")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(f"{worker}: {_error(done.stderr)}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _error(said: str) -> str:
    """The line that names the error, or the last one; JAX writes more behind it."""
    lines = said.strip().splitlines() or ["it ended"]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (named or lines)[-1][:300]


def _line(title: str, found: dict[str, Any]) -> str:
    cudnn = sum(times for target, times in found["custom"].items() if "cudnn" in target)
    products = found["products"]
    return (
        f"{title[:48]:48}{found['instructions']:8,}{found['random'] / found['instructions']:7.0%}"
        f"{found['kernels']:8,}{cudnn:6}{found['bytes'] / 1e9:8.2f}{found['milliseconds']:7.2f}"
        f"{products.get('bf16', 0):9.2e}{products.get('f32', 0):9.2e}"
        f"{found['planned'] / 2**30:7.2f}{found['cpu_seconds']:7.1f}"
    )


def _compiled(options: argparse.Namespace) -> dict[str, Any]:
    """The worker's side: compiles a program and counts."""
    from transformer.training.accelerators import find_target

    target = find_target(options.topology)
    import jax

    # A program from a cache would hide how long compiling takes.
    jax.config.update("jax_enable_compilation_cache", False)
    name, _, title = options.worker.partition(":")
    row = next(row for row in ROWS if row.name == name)
    config = row.made_config(options.folder, tiny=False)
    config.update_from_flattened_dict(PROGRAMS[name][title])
    lower = _writing if name == "decoding" else _state if title == STATE else _step
    make = lower(config, target, title)
    begun = time.process_time()
    compiled = make()
    seconds = time.process_time() - begun
    text = compiled.as_text()
    if options.text:
        options.text.mkdir(exist_ok=True)
        (options.text / f"{name}, {title}.txt").write_text(text, "utf-8")
    used = compiled.memory_analysis()
    counted = vars(count(text))
    bandwidth = bandwidth_of(target.devices[0].device_kind)
    return counted | {
        "milliseconds": counted["bytes"] / bandwidth * 1e3,
        "planned": used.argument_size_in_bytes
        + used.output_size_in_bytes
        - used.alias_size_in_bytes
        + used.temp_size_in_bytes,
        "cpu_seconds": seconds,
    }


def _step(config: Any, target: Any, title: str) -> Any:
    """What compiles the training step."""
    from transformer.planning.ahead_of_time import compile_steps
    from transformer.training.experiment import prepare

    return functools.partial(compile_steps, prepare(config, devices=target.devices))


def _state(config: Any, target: Any, title: str) -> Any:
    """What compiles the state before the first step."""
    import jax

    from transformer.training.experiment import prepare
    from transformer.training.programs import make_programs

    experiment = prepare(config, devices=target.devices)

    def make() -> Any:
        key = jax.eval_shape(lambda: jax.random.key(0))
        with jax.set_mesh(experiment.mesh):
            return make_programs(experiment).new_state.lower(key).compile()

    return make


def _writing(config: Any, target: Any, title: str) -> Any:
    """What compiles the loop that writes 16 tokens for some rows, 64 read and 256 to come."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from transformer import sharding
    from transformer.decoding import sample
    from transformer.decoding.preparing import prepared
    from transformer.ops.logits import Sampling
    from transformer.training.sections import build

    rows = int(title.split(maxsplit=1)[0])
    model = build("model", config.model)
    mesh = build("mesh", config.mesh).make(target.devices)
    place = sharding.replicated(mesh)

    def placed(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    tokens = jax.ShapeDtypeStruct((rows, 64), jnp.int32)
    boxed = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    with jax.set_mesh(mesh):
        # Models are no results of traced functions.
        models = []

        def prepare(params: Any) -> Any:
            writer, params = prepared(model, params)
            models.append(writer)
            return params

        params = placed(jax.eval_shape(prepare, nn.meta.unbox(boxed)))
        (model,) = models
    lengths = jax.ShapeDtypeStruct((rows,), jnp.int32)
    number = placed(jax.ShapeDtypeStruct((), jnp.int32))

    def make() -> Any:
        with jax.set_mesh(mesh):
            state = jax.eval_shape(
                lambda *args: sample._read(model, 320, sample.as_it_is, *args),
                params,
                tokens,
                lengths,
            )
            keys = placed(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows)))
            lowered = sample._continue.lower(
                model.for_writing(), Sampling(0.0), 16, params, placed(state), keys, number, number
            )
            return lowered.compile()

    return make


if __name__ == "__main__":
    main()
