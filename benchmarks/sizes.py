"""The models that the benchmarks compare, the same in every framework: GPT-2 of several sizes."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Size:
    """Shapes of a model and its batch."""

    num_layers: int
    num_heads: int
    width: int
    context: int
    batch_size: int
    vocab_size: int = 80


SIZES = {
    "default": Size(num_layers=4, num_heads=4, width=128, context=64, batch_size=12),
    "small": Size(num_layers=6, num_heads=6, width=384, context=256, batch_size=8),
    "long": Size(num_layers=4, num_heads=4, width=128, context=2048, batch_size=1),
}


def ours(size: Size, **fields):
    """Our model of a size."""
    from transformer.models.gpt import GPT

    return GPT(
        vocab_size=size.vocab_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        width=size.width,
        context=size.context,
        **fields,
    )


def theirs(size: Size):
    """The same model from Hugging Face `transformers`, without dropout, on all cores."""
    import os

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=size.num_layers,
            n_head=size.num_heads,
            n_embd=size.width,
            n_positions=size.context,
            vocab_size=size.vocab_size,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
