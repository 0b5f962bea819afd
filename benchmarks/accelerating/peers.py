"""The peers: the same models in PyTorch, as fast as one writes them without a kernel of one's own.

On a GPU: `torch.compile`, `scaled_dot_product_attention`, fused AdamW, autocast to bfloat16 where
ours computes in it, TF32 elsewhere. On a CPU: eager and in float32, which shows that they run.
Batches have the shapes of ours and hold no padding. Nothing is downloaded: weights are random.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from accelerating.clock import measure, report


class Peer(NamedTuple):
    """A model with its loss, and batches to train it on."""

    name: str
    model: nn.Module
    loss: Callable[..., torch.Tensor]
    batches: list[tuple[torch.Tensor, ...]]


def on_gpu() -> bool:
    """Whether there is a GPU, of which nothing is asked in a tiny run."""
    return torch.cuda.is_available()


def _device() -> str:
    return "cuda" if on_gpu() else "cpu"


def _tokens(vocab_size: int, *shape: int) -> torch.Tensor:
    return torch.randint(vocab_size, shape, device=_device())


def _set_up() -> None:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")


def _wait() -> None:
    if on_gpu():
        torch.cuda.synchronize()


def _memory() -> dict[str, float]:
    return {"peak_bytes_in_use": torch.cuda.max_memory_allocated()} if on_gpu() else {}


def _named(library: str = "") -> str:
    how = "compiled" if on_gpu() else "eager"
    return f"{library or 'PyTorch'}, {how}"


def training(job: Any) -> None:
    """Training steps of the peer of a row."""
    _set_up()
    sizes = job.sizes
    peer: Peer = PEERS[job.row.peer](sizes)
    model = peer.model.to(_device()).train()
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
    """Images, or tokens that are read: labels come last and are not."""
    return batch[0].shape[0] if item == "images" else sum(x.numel() for x in batch[:-1])


class _GPT(nn.Module):
    """GPT-2 as compact as nanoGPT has it."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        width, self.heads = sizes["width"], sizes["num_heads"]
        self.tokens = nn.Embedding(sizes["vocab_size"], width)
        self.positions = nn.Embedding(sizes["context"], width)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "output": nn.Linear(width, width),
                    "second_norm": nn.LayerNorm(width),
                    "up": nn.Linear(width, 4 * width),
                    "down": nn.Linear(4 * width, width),
                }
            )
            for _ in range(sizes["num_layers"])
        )
        self.norm = nn.LayerNorm(width)
        self.apply(_initialize)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        rows, length = tokens.shape
        x = self.tokens(tokens) + self.positions(torch.arange(length, device=tokens.device))
        for layer in self.layers:
            qkv = layer["qkv"](layer["norm"](x)).view(rows, length, 3, self.heads, -1)
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            seen = scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + layer["output"](seen.transpose(1, 2).reshape(rows, length, -1))
            wide = nn.functional.gelu(layer["up"](layer["second_norm"](x)), approximate="tanh")
            x = x + layer["down"](wide)
        return self.norm(x) @ self.tokens.weight.T


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


def _token_loss(logits: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
    return cross_entropy(logits.float().view(-1, logits.shape[-1]), labels.reshape(-1), **options)


def gpt2(sizes: dict[str, Any]) -> Peer:
    """GPT-2."""
    tokens = _tokens(sizes["vocab_size"], sizes["batch_size"], sizes["context"])

    def loss(model: nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return _token_loss(model(tokens), labels)

    return Peer(_named(), _GPT(sizes), loss, [(tokens, tokens.roll(-1, 1))])


def llama(sizes: dict[str, Any]) -> Peer:
    """Llama, of `transformers`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=sizes["vocab_size"],
            hidden_size=sizes["width"],
            intermediate_size=sizes["feed_forward_width"],
            num_hidden_layers=sizes["num_layers"],
            num_attention_heads=sizes["num_heads"],
            num_key_value_heads=sizes["num_kv_heads"],
            max_position_embeddings=sizes["context"],
            attn_implementation="sdpa",
            use_cache=False,
        )
    )
    tokens = _tokens(sizes["vocab_size"], sizes["batch_size"], sizes["context"])

    def loss(model: nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return _token_loss(model(input_ids=tokens).logits, labels)

    return Peer(_named("transformers"), model, loss, [(tokens, tokens.roll(-1, 1))])


def vit(sizes: dict[str, Any]) -> Peer:
    """ViT, of timm where that is installed and of `transformers` elsewhere."""
    side, patch = sizes["image_size"], sizes["patch_size"]
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError:
        from transformers import ViTConfig, ViTForImageClassification

        whole = ViTForImageClassification(
            ViTConfig(
                image_size=side,
                patch_size=patch,
                num_hidden_layers=sizes["num_layers"],
                num_attention_heads=sizes["num_heads"],
                hidden_size=sizes["width"],
                intermediate_size=4 * sizes["width"],
                num_labels=sizes["num_outputs"],
                attn_implementation="sdpa",
            )
        )
        library, model = "transformers", _Logits(whole)
    else:
        library = "timm"
        model = VisionTransformer(
            img_size=side,
            patch_size=patch,
            embed_dim=sizes["width"],
            depth=sizes["num_layers"],
            num_heads=sizes["num_heads"],
            num_classes=sizes["num_outputs"],
            drop_path_rate=sizes["stochastic_depth_rate"],
        )
    shape = (sizes["batch_size"], 3, side, side)
    pixels = torch.randint(256, shape, device=_device(), dtype=torch.uint8)

    def loss(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model((pixels.float() / 255 - 0.5) / 0.5).float(), labels)

    labels = _tokens(sizes["num_outputs"], sizes["batch_size"])
    return Peer(_named(library), model, loss, [(pixels, labels)])


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixels).logits


def bert(sizes: dict[str, Any]) -> Peer:
    """BERT with the head for masked words, of `transformers`; a seventh of the places is scored."""
    from transformers import BertConfig, BertModel

    width = sizes["width"]
    body = BertModel(
        BertConfig(
            vocab_size=sizes["vocab_size"],
            hidden_size=width,
            num_hidden_layers=sizes["num_layers"],
            num_attention_heads=sizes["num_heads"],
            intermediate_size=4 * width,
            max_position_embeddings=sizes["context"],
            attention_probs_dropout_prob=sizes["dropout_rate"],
            hidden_dropout_prob=sizes["dropout_rate"],
            attn_implementation="sdpa",
        ),
        add_pooling_layer=False,
    )
    head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
    model = nn.ModuleDict({"body": body, "head": head})
    rows, length = sizes["batch_size"], sizes["max_length"]
    tokens = _tokens(sizes["vocab_size"], rows, length)
    hidden = round(0.15 * length)

    def loss(model: nn.ModuleDict, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        features = model["body"](input_ids=tokens).last_hidden_state[:, :hidden]
        table = model["body"].embeddings.word_embeddings.weight
        return _token_loss(model["head"](features) @ table.T, labels)

    return Peer(_named("transformers"), model, loss, [(tokens, tokens[:, :hidden].clone())])


class _Translator(nn.Module):
    """PyTorch's own `nn.Transformer` between one table and the same table."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        self.width = sizes["width"]
        self.tokens = nn.Embedding(sizes["vocab_size"], self.width)
        self.body = nn.Transformer(
            self.width,
            sizes["num_heads"],
            sizes["num_encoder_layers"],
            sizes["num_decoder_layers"],
            sizes["feed_forward_width"],
            sizes["dropout_rate"],
            batch_first=True,
            norm_first=sizes["norm_order"] == "pre",
        )
        self.dropout = nn.Dropout(sizes["dropout_rate"])
        for module in self.body.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0  # Ours drops embeddings and branches only.
        self.apply(_initialize)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)[:, None]
        steps = torch.arange(0, self.width, 2, device=tokens.device)
        angles = places * torch.exp(steps * (-math.log(10_000) / self.width))
        waves = torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
        return self.dropout(self.tokens(tokens) * math.sqrt(self.width) + waves)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        length = target.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=target.device)
        features = self.body(
            self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True
        )
        return features @ self.tokens.weight.T


def translation(sizes: dict[str, Any]) -> Peer:
    """The Transformer of 2017."""
    smoothing = sizes["label_smoothing"]

    def loss(model: nn.Module, source: torch.Tensor, *texts: torch.Tensor) -> torch.Tensor:
        target, labels = texts
        return _token_loss(model(source, target), labels, label_smoothing=smoothing)

    return Peer(_named(), _Translator(sizes), loss, _pairs(sizes))


def t5(sizes: dict[str, Any]) -> Peer:
    """T5, of `transformers`."""
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=sizes["vocab_size"],
            d_model=sizes["width"],
            d_kv=sizes["head_dim"],
            d_ff=sizes["feed_forward_width"],
            num_layers=sizes["num_encoder_layers"],
            num_decoder_layers=sizes["num_decoder_layers"],
            num_heads=sizes["num_heads"],
            dropout_rate=sizes["dropout_rate"],
            feed_forward_proj="relu",
            use_cache=False,
        )
    )

    def loss(model: nn.Module, source: torch.Tensor, *texts: torch.Tensor) -> torch.Tensor:
        target, labels = texts
        return _token_loss(model(input_ids=source, decoder_input_ids=target).logits, labels)

    return Peer(_named("transformers"), model, loss, _pairs(sizes))


def _pairs(sizes: dict[str, Any]) -> list[tuple[torch.Tensor, ...]]:
    """Batches of the shapes that ours had; where ours failed, one of a usual shape."""
    usual = [[[sizes["batch_tokens"] // 32, 32]] * 2]
    batches = []
    for source, target in sizes.get("batches") or usual:
        tokens = [_tokens(sizes["vocab_size"], *shape) for shape in (source, target)]
        batches.append((*tokens, tokens[1].roll(-1, 1)))
    return batches


PEERS: dict[str, Callable[[dict[str, Any]], Peer]] = {
    function.__name__: function for function in (gpt2, llama, vit, bert, translation, t5)
}


def decoding(job: Any) -> None:
    """Greedy writing by `transformers`, with its cache."""
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
    model = GPT2LMHeadModel(config).to(_device(), dtype).eval()
    read, new = job.setting("prompt"), job.setting("new")
    before = job.started
    for rows in job.setting("batches"):
        line = f"{job.row.title}, batch {rows}"
        tokens = _tokens(sizes["vocab_size"], rows, read)

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
    """`scaled_dot_product_attention`, causal, forward and backward; beside each of ours."""
    _set_up()
    heads, head_dim = job.setting("heads")
    dtype = torch.bfloat16 if on_gpu() else torch.float32
    for length in job.setting("lengths"):
        rows = job.setting("tokens") // length
        arrays = [
            torch.randn(
                (rows, heads, length, head_dim), device=_device(), dtype=dtype, requires_grad=True
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
