"""Training steps of a ViT against PyTorch: the same model, batch and optimizer, in turns.

    pip install -e '.[vision]' torch==2.13.0 transformers
    python benchmarks/vision.py --size=digits
    python benchmarks/vision.py --size=Ti/16

Both models take the class from a class token, over patches through one dense layer: `digits` has
4 layers of width 64 for images of 8x8 pixels, `Ti/16` is the published one at 224.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from alternate import CLOCKS, alternate, serve
from floors import training_needs

SIZES = {
    "digits": {
        "image_size": 8,
        "patch_size": 2,
        "channels": 1,
        "num_layers": 4,
        "num_heads": 4,
        "width": 64,
        "num_outputs": 10,
    },
    "Ti/16": {
        "image_size": 224,
        "patch_size": 16,
        "channels": 3,
        "num_layers": 12,
        "num_heads": 3,
        "width": 192,
        "num_outputs": 1000,
    },
}
BATCH_SIZES = {"digits": 64, "Ti/16": 8}
UNITS = {"digits": 40, "Ti/16": 2}


def images_and_labels(size: dict[str, int], units: int, batch_size: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    side = size["image_size"]
    images = random.integers(256, size=(units, batch_size, side, side, size["channels"]))
    return images.astype(np.uint8), random.integers(size["num_outputs"], size=(units, batch_size))


def train_ours(name: str, units: int, clock: Callable[[], float]) -> None:
    from transformer.runtime import prepare_process

    prepare_process()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from transformer.composition import with_fields
    from transformer.data.images.preparation import Preparation
    from transformer.models.vit import ViT
    from transformer.tasks.image_classification import ImageClassification
    from transformer.training import state as states
    from transformer.training.optimizers import Optimizer, make_optimizer, make_schedule
    from transformer.training.step import Recipe, train_steps

    size, batch_size = SIZES[name], BATCH_SIZES[name]
    model = ViT(**size)
    preparation = Preparation(image_size=size["image_size"])
    task = with_fields(ImageClassification(), preparation=preparation, batch_size=batch_size)
    boxed = model.init(jax.random.key(0), *task.example_inputs(model), method=task.entry)["params"]
    options = Optimizer(schedule="constant", warmup="0 steps")
    schedule = make_schedule(options, warmup_steps=0, total_steps=1)
    optimizer = make_optimizer(options, schedule, boxed)
    state = states.create(nn.meta.unbox(boxed), optimizer, jax.random.key(0), average=False)
    recipe = Recipe(
        lambda params, batch, rngs: task.losses(model, params, batch, rngs), optimizer, schedule
    )
    steps = jax.jit(functools.partial(train_steps, recipe), donate_argnums=0)
    images, labels = images_and_labels(size, units, batch_size)
    labels = jnp.asarray(labels, jnp.int32)
    batches = {
        "images": jnp.asarray(images),
        "labels": labels,
        "other_labels": labels,
        "shares": jnp.ones(labels.shape, jnp.float32),
        "valid": jnp.ones(labels.shape, jnp.int32),
    }

    def work() -> None:
        nonlocal state
        state, _ = steps(state, batches, units)
        jax.block_until_ready(state)

    one = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batches.items()}
    serve(
        work,
        units=units,
        clock=clock,
        needs=dataclasses.asdict(training_needs(task, model, state.params, one)),
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
    )


def train_theirs(name: str, units: int, compiled: bool, clock: Callable[[], float]) -> None:
    import torch
    import transformers

    size, batch_size = SIZES[name], BATCH_SIZES[name]
    config = transformers.ViTConfig(
        image_size=size["image_size"],
        patch_size=size["patch_size"],
        num_channels=size["channels"],
        num_hidden_layers=size["num_layers"],
        num_attention_heads=size["num_heads"],
        hidden_size=size["width"],
        intermediate_size=4 * size["width"],
        num_labels=size["num_outputs"],
    )
    model = transformers.ViTForImageClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    forward = torch.compile(model) if compiled else model
    images, labels = images_and_labels(size, units, batch_size)
    images, labels = torch.tensor(images.transpose(0, 1, 4, 2, 3)), torch.tensor(labels)

    def work() -> None:
        for index in range(units):
            optimizer.zero_grad(set_to_none=True)
            pixels = (images[index].float() / 255.0 - 0.5) / 0.5
            logits = forward(pixel_values=pixels).logits
            torch.nn.functional.cross_entropy(logits, labels[index]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    serve(work, units=units, clock=clock, parameters=sum(x.numel() for x in model.parameters()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="digits")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    name, clock = arguments.size, CLOCKS[arguments.clock]
    flags = [f"--size={name}", f"--clock={arguments.clock}"]
    match arguments.worker:
        case None:
            workers = {
                worker: [sys.executable, __file__, *flags, f"--worker={worker}"]
                for worker in ("torch eager", "torch compile", "ours")
            }
            count = BATCH_SIZES[name]
            alternate(workers, rounds=arguments.rounds, items_per_unit=count, item="images")
        case "ours":
            train_ours(name, UNITS[name], clock)
        case _:
            train_theirs(name, UNITS[name], "compile" in arguments.worker, clock)


if __name__ == "__main__":
    main()
