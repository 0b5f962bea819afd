"""The peers: the same models in PyTorch, as fast as possible without custom kernels.

On a GPU: `torch.compile`, `scaled_dot_product_attention`, fused AdamW, autocast to bfloat16 if ours
computes in it, else TF32. On a CPU: eager and in float32, only to show that they run.
Batches have the shapes of ours and hold no padding. Nothing is downloaded: weights are random.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from accelerating.clock import measure, report
from accelerating.peer_models import PEERS, Peer, device, on_gpu, tokens_of_shape


def _set_up() -> None:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")


def _wait() -> None:
    if on_gpu():
        torch.cuda.synchronize()


def _memory() -> dict[str, float]:
    return {"peak_bytes_in_use": torch.cuda.max_memory_allocated()} if on_gpu() else {}


def training(job: Any) -> None:
    """Training steps of the peer of a row."""
    _set_up()
    sizes = job.sizes
    peer: Peer = PEERS[job.row.peer](sizes)
    model = peer.model.to(device()).train()
    settings = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.1, "fused": on_gpu()}
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    halved = on_gpu() and sizes["dtype"] == "bfloat16"

    def find_loss(*batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=halved):
            return peer.loss(model, *batch)

    compiled = torch.compile(find_loss) if on_gpu() else find_loss

    def work(times: int, batches: list = peer.batches) -> None:
        for _ in range(times):
            for batch in batches:
                compiled(*batch).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        _wait()

    work(1, peer.batches[:1])
    report(job.row.title, name=peer.name, first=time.time() - job.started)
    work(1)
    report(job.row.title, all_shapes=time.time() - job.started)
    items = sum(_items(batch, job.row.item) for batch in peer.batches) / len(peer.batches)
    found = measure(work, seconds=job.seconds, units=len(peer.batches))
    report(job.row.title, **found, **_memory(), items=items)


def _items(batch: tuple[torch.Tensor, ...], item: str) -> int:
    """The number of images, or of input tokens; labels, which come last, do not count."""
    return batch[0].shape[0] if item == "images" else sum(x.numel() for x in batch[:-1])


def decoding(job: Any) -> None:
    """Greedy generation by `transformers`, with its cache."""
    from transformers import GPT2Config, GPT2LMHeadModel

    _set_up()
    sizes = job.sizes
    config = GPT2Config(
        n_layer=sizes["num_layers"],
        n_head=sizes["num_heads"],
        n_embd=sizes["width"],
        n_positions=sizes["context"],
        vocab_size=sizes["vocab_size"],
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    dtype = torch.bfloat16 if on_gpu() else torch.float32
    model = GPT2LMHeadModel(config).to(device(), dtype).eval()
    read, new = job.setting("prompt"), job.setting("new")
    before = job.started
    for rows in job.setting("batches"):
        line = f"{job.row.title}, batch {rows}"
        tokens = tokens_of_shape(sizes["vocab_size"], rows, read)

        def work(times: int, tokens: torch.Tensor = tokens) -> None:
            for _ in range(times):
                with torch.inference_mode():
                    output = model.generate(
                        tokens,
                        attention_mask=torch.ones_like(tokens),
                        min_new_tokens=new,
                        max_new_tokens=new,
                        do_sample=False,
                        use_cache=True,
                        pad_token_id=0,
                    )
                assert output.shape[1] == read + new
            _wait()

        work(1)
        report(line, name="transformers, eager", first=time.time() - before)
        found = measure(work, seconds=job.seconds, units=new, rounds=3)
        report(line, **found, **_memory(), items=rows)
        before = time.time()


def attention(job: Any) -> None:
    """Causal `scaled_dot_product_attention`, forward and backward, next to each of ours."""
    _set_up()
    heads, head_dim = job.setting("heads")
    dtype = torch.bfloat16 if on_gpu() else torch.float32
    for length in job.setting("lengths"):
        rows = job.setting("tokens") // length
        arrays = [
            torch.randn(
                (rows, heads, length, head_dim), device=device(), dtype=dtype, requires_grad=True
            )
            for _ in range(3)
        ]

        def work(times: int, arrays: list = arrays) -> None:
            for _ in range(times):
                seen = scaled_dot_product_attention(*arrays, is_causal=True)
                torch.autograd.grad(seen.float().square().sum(), arrays)
            _wait()

        work(1)
        found = measure(work, seconds=job.seconds / 8)
        for name in ("cudnn",) * on_gpu() + ("blockwise", "einsum"):
            line = f"attention, {rows} x {length:,}, {name}"
            report(line, **found, name="PyTorch's own", items=rows * length)


JOBS: dict[str, Callable[[Any], None]] = {
    function.__name__: function for function in (training, decoding, attention)
}
