"""Greedy generation with a cache against `transformers`, the same model, in turns.

A third program writes with weights in 8 bits.

pip install -e '.[data]' torch==2.13.0 transformers
python benchmarks/generation.py --size=default --batch_size=1
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable

import numpy as np
from alternate import CLOCKS, alternate, serve
from floors import Needs
from sizes import SIZES, Size, ours, theirs

PROMPT_LENGTH = 8


def generate_ours(
    size: Size, batch_size: int, new_tokens: int, clock: Callable[[], float], *, int8: bool = False
) -> None:
    from transformer.runtime import prepare_process

    prepare_process()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from transformer.decoding.sample import generate
    from transformer.nn.int8 import weights_in_int8
    from transformer.ops.logits import Sampling

    model = ours(size)
    tokens = jnp.zeros((1, size.context), jnp.int32)
    params = nn.meta.unbox(model.init(jax.random.key(0), tokens)["params"])
    params = weights_in_int8(model, params) if int8 else params
    prompts = np.random.default_rng(0).integers(size.vocab_size, size=(batch_size, PROMPT_LENGTH))

    def work() -> None:
        chunks = generate(
            model,
            params,
            list(prompts),
            max_new_tokens=new_tokens,
            sampling=Sampling(temperature=0),
            seed=0,
            chunk=new_tokens,
        )
        assert sum(chunk.shape[1] for chunk in chunks) == new_tokens

    needed = None if int8 else dataclasses.asdict(writing_needs(size, model, params, batch_size))
    serve(work, units=new_tokens, clock=clock, needs=needed)


def writing_needs(size: Size, model, params, batch_size: int) -> Needs:
    """What a token of each text needs, on average over the context.

    That is all weights, and keys and values of the tokens before.
    """
    import jax
    import jax.numpy as jnp

    from transformer.training.flops import count_flops

    def logits(params, tokens):
        return model.apply({"params": params}, tokens)

    tokens = jnp.zeros((batch_size, 1), jnp.int32)
    cached = batch_size * size.context / 2 * size.width * size.num_layers
    # The table of tokens is the output layer, and read as a whole; that of positions is not.
    positions = size.context * size.width
    weights = sum(x.size for x in jax.tree.leaves(params)) - positions
    return Needs(count_flops(logits, params, tokens) + 4 * cached, 4 * (weights + 2 * cached))


def generate_theirs(
    size: Size, batch_size: int, new_tokens: int, clock: Callable[[], float]
) -> None:
    import torch

    model = theirs(size).eval()
    prompts = np.random.default_rng(0).integers(size.vocab_size, size=(batch_size, PROMPT_LENGTH))
    tokens = torch.tensor(prompts)

    def work() -> None:
        with torch.inference_mode():
            output = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=0,
            )
        assert output.shape[1] == PROMPT_LENGTH + new_tokens

    serve(work, units=new_tokens, clock=clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("default", "small"), default="default")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    new_tokens = size.context - PROMPT_LENGTH
    if arguments.worker:
        make = {
            "transformers": generate_theirs,
            "ours": generate_ours,
            "ours, int8 weights": functools.partial(generate_ours, int8=True),
        }[arguments.worker]
        make(size, arguments.batch_size, new_tokens, CLOCKS[arguments.clock])
        return
    flags = [f"--size={arguments.size}", f"--batch_size={arguments.batch_size}"]
    flags.append(f"--clock={arguments.clock}")
    workers = {
        name: [sys.executable, __file__, *flags, f"--worker={name}"]
        for name in ("transformers", "ours", "ours, int8 weights")
    }
    alternate(workers, rounds=arguments.rounds, items_per_unit=arguments.batch_size, item="tokens")


if __name__ == "__main__":
    main()
