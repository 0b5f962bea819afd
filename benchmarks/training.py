"""Training steps against PyTorch: the same model, batch and optimizer, in turns.

    pip install -e '.[data]' torch==2.13.0 transformers
    python benchmarks/training.py --size=default
    python benchmarks/training.py --size=small
    python benchmarks/training.py --size=long

`long` has 2,048 positions, where PyTorch uses its fused attention. Beside other work, compare
processor time on one core:

    taskset -c 1 python benchmarks/training.py --size=long --clock=processor
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable

import numpy as np
from alternate import CLOCKS, alternate, serve
from floors import hidden_flops, training_needs
from sizes import SIZES, Size, ours, theirs

UNITS = {"default": 40, "small": 4, "long": 2}


def train_ours(size: Size, units: int, attention: str, clock: Callable[[], float]) -> None:
    from transformer.runtime import prepare_process

    prepare_process()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from transformer.composition import with_fields
    from transformer.nn.compute import Compute
    from transformer.tasks.language_modeling import LanguageModeling
    from transformer.training import state as states
    from transformer.training.optimizers import Optimizer, make_optimizer, make_schedule
    from transformer.training.step import Recipe, train_steps

    model = ours(size, compute=Compute(attention=attention))
    task = with_fields(LanguageModeling(), context=size.context, batch_size=size.batch_size)
    boxed = model.init(jax.random.key(0), *task.example_inputs(model))["params"]
    options = Optimizer(schedule="constant", warmup="0 steps")
    schedule = make_schedule(options, warmup_steps=0, total_steps=1)
    optimizer = make_optimizer(options, schedule, boxed)
    state = states.create(nn.meta.unbox(boxed), optimizer, jax.random.key(0), average=False)
    recipe = Recipe(
        lambda params, batch, rngs: task.losses(model, params, batch, rngs), optimizer, schedule
    )
    steps = jax.jit(functools.partial(train_steps, recipe), donate_argnums=0)
    random = np.random.default_rng(0)
    shape = (units, size.batch_size, size.context)
    batches = {
        name: jnp.asarray(random.integers(size.vocab_size, size=shape), jnp.int32)
        for name in ("tokens", "labels")
    }

    def work() -> None:
        nonlocal state
        state, _ = steps(state, batches, units)
        jax.block_until_ready(state)

    one = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batches.items()}
    hidden = hidden_flops(size.batch_size, size.context, size.width, size.num_layers)
    needed = training_needs(task, model, state.params, one, hidden)
    serve(work, units=units, clock=clock, needs=dataclasses.asdict(needed))


def train_theirs(size: Size, units: int, compiled: bool, clock: Callable[[], float]) -> None:
    import torch

    model = theirs(size).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    forward = torch.compile(model) if compiled else model
    random = np.random.default_rng(0)
    shape = (units, size.batch_size, size.context)
    tokens, labels = (torch.tensor(random.integers(size.vocab_size, size=shape)) for _ in range(2))

    def work() -> None:
        for index in range(units):
            optimizer.zero_grad(set_to_none=True)
            logits = forward(input_ids=tokens[index], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits.view(-1, size.vocab_size), labels[index].view(-1)
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    serve(work, units=units, clock=clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    size, units = SIZES[arguments.size], UNITS[arguments.size]
    clock = CLOCKS[arguments.clock]
    flags = [f"--size={arguments.size}", f"--clock={arguments.clock}"]
    match arguments.worker:
        case None:
            names = ["torch eager", "torch compile", "ours"]
            if arguments.size == "long":
                names.append("ours einsum")
            workers = {
                name: [sys.executable, __file__, *flags, f"--worker={name}"] for name in names
            }
            tokens = size.batch_size * size.context
            alternate(workers, rounds=arguments.rounds, items_per_unit=tokens, item="tokens")
        case "ours" | "ours einsum":
            attention = "einsum" if "einsum" in arguments.worker else "auto"
            train_ours(size, units, attention, clock)
        case _:
            train_theirs(size, units, "compile" in arguments.worker, clock)


if __name__ == "__main__":
    main()
