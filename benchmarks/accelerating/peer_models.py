"""The models of the peers, in PyTorch or from its libraries, with random weights."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention


class Peer(NamedTuple):
    """A model with its loss, and batches to train it on."""

    name: str
    model: nn.Module
    loss: Callable[..., torch.Tensor]
    batches: list[tuple[torch.Tensor, ...]]


def on_gpu() -> bool:
    """Whether to use a GPU; tiny runs do not."""
    return torch.cuda.is_available()


def device() -> str:
    return "cuda" if on_gpu() else "cpu"


def tokens_of_shape(vocab_size: int, *shape: int) -> torch.Tensor:
    return torch.randint(vocab_size, shape, device=device())


def _named(library: str = "") -> str:
    how = "compiled" if on_gpu() else "eager"
    return f"{library or 'PyTorch'}, {how}"


class _GPT(nn.Module):
    """A compact GPT-2 as in nanoGPT."""

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
    tokens = tokens_of_shape(sizes["vocab_size"], sizes["batch_size"], sizes["context"])

    def loss(model: nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return _token_loss(model(tokens), labels)

    return Peer(_named(), _GPT(sizes), loss, [(tokens, tokens.roll(-1, 1))])


def llama(sizes: dict[str, Any]) -> Peer:
    """Llama from `transformers`."""
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
    tokens = tokens_of_shape(sizes["vocab_size"], sizes["batch_size"], sizes["context"])

    def loss(model: nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return _token_loss(model(input_ids=tokens).logits, labels)

    return Peer(_named("transformers"), model, loss, [(tokens, tokens.roll(-1, 1))])


def vit(sizes: dict[str, Any]) -> Peer:
    """ViT from timm if installed, else from `transformers`."""
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
    pixels = torch.randint(256, shape, device=device(), dtype=torch.uint8)

    def loss(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model((pixels.float() / 255 - 0.5) / 0.5).float(), labels)

    labels = tokens_of_shape(sizes["num_outputs"], sizes["batch_size"])
    return Peer(_named(library), model, loss, [(pixels, labels)])


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixels).logits


def bert(sizes: dict[str, Any]) -> Peer:
    """BERT with the masked-word head from `transformers`; a seventh of positions is scored."""
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
    tokens = tokens_of_shape(sizes["vocab_size"], rows, length)
    hidden = round(0.15 * length)

    def loss(model: nn.ModuleDict, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        features = model["body"](input_ids=tokens).last_hidden_state[:, :hidden]
        table = model["body"].embeddings.word_embeddings.weight
        return _token_loss(model["head"](features) @ table.T, labels)

    return Peer(_named("transformers"), model, loss, [(tokens, tokens[:, :hidden].clone())])


class _Translator(nn.Module):
    """PyTorch's `nn.Transformer` with one shared table for inputs and outputs."""

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
                module.dropout = 0.0  # Ours has dropout of embeddings and branches only.
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
    """T5 from `transformers`."""
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
    """Batches of the same shapes as ours; if ours failed, one of a typical shape."""
    usual = [[[sizes["batch_tokens"] // 32, 32]] * 2]
    batches = []
    for source, target in sizes.get("batches") or usual:
        tokens = [tokens_of_shape(sizes["vocab_size"], *shape) for shape in (source, target)]
        batches.append((*tokens, tokens[1].roll(-1, 1)))
    return batches


PEERS: dict[str, Callable[[dict[str, Any]], Peer]] = {
    function.__name__: function for function in (gpt2, llama, vit, bert, translation, t5)
}
