"""The rows of the table: the config, the size and the peer of each.

A row trains what `scripts/train.py` would train: a shipped config with the fields below overridden.
`tiny` fields let a CPU run a row in seconds, to test that it works, not to measure speed.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row, or several lines that belong together.

    Attributes:
        name: the name for `--rows`.
        title: the title in the table.
        job: the function of `ours` that measures it.
        peer: the model of `peers` to compare with; or `decoding`, `attention`, or the name of
            another row whose speed is the peer.
        config: file and variant in `configs/`.
        fields: overrides of the config.
        tiny: overrides of the config on a CPU.
        item: what is counted per second.
        cache: the row whose compiled programs this one starts with; empty for none.
        beside: the row whose peer, measured once, is this one's too; empty for none.
        patience: factor of the usual time limit of our side.
        settings: further settings of the job, as pairs of the full and the tiny value.
            `dispatches` is the number of batches to alternate if they differ in shape.
    """

    name: str
    title: str
    job: str = "training"
    peer: str = ""
    config: str = ""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tiny: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    item: str = "tokens"
    cache: str = ""
    beside: str = ""
    patience: float = 1.0
    settings: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)

    def setting(self, name: str, tiny: bool) -> Any:
        """A value of `settings`; `dispatches` is 1 by default."""
        return {"dispatches": (1, 1), **self.settings}[name][tiny]

    def made_config(self, folder: Path, tiny: bool) -> Any:
        """The config, with `{folder}` in its texts filled in.

        Args:
            folder: the folder with the files of `inputs.write_inputs`.
            tiny: whether to use the small sizes for a CPU.
        """
        name, _, variant = self.config.partition(":")
        spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(*[variant] * bool(variant))
        config.update_from_flattened_dict(self._chosen(folder, tiny))
        return config

    def flags(self, folder: Path, tiny: bool) -> list[str]:
        """The config as arguments of `scripts/train.py`."""
        return [f"--config={ROOT / 'configs'}/{self._file()}"] + [
            f"--config.{key}={value}" for key, value in self._chosen(folder, tiny).items()
        ]

    def sizes(self, folder: Path, tiny: bool) -> dict[str, Any]:
        """The plain fields of model and task, which a peer gets."""
        if not self.config:
            return {}
        config = self.made_config(folder, tiny)
        plain = (int, float, str, bool, tuple, type(None))
        fields = {**config.task, **config.model, "dtype": config.model.compute.dtype}
        return {key: value for key, value in fields.items() if isinstance(value, plain)}

    def _file(self) -> str:
        name, _, variant = self.config.partition(":")
        return f"{name}.py:{variant}" if variant else f"{name}.py"

    def _chosen(self, folder: Path, tiny: bool) -> dict[str, Any]:
        chosen = {**self.fields, **(self.tiny if tiny else {})}
        return {
            key: value.replace("{folder}", str(folder)) if isinstance(value, str) else value
            for key, value in chosen.items()
        }


_CHARACTERS = {"task.tokenizer.kind": "character", "task.path": "{folder}/characters.txt"}
_TINY_DECODER = {
    "model.vocab_size": 256,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.width": 32,
    "model.context": 64,
    # Scans and recomputation take longer to compile.
    "model.compute.scan_layers": False,
    "model.compute.remat": "none",
    "task.batch_size": 2,
    "task.vocab_chunk": 64,
}
_PAIRS = {
    "task.train": "{folder}/source.txt,{folder}/target.txt",
    "task.validation": "{folder}/source_held_out.txt,{folder}/target_held_out.txt",
}
_TINY_PAIRS = {
    "model.vocab_size": 400,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
    "model.num_heads": 2,
    "model.width": 32,
    "model.feed_forward_width": 64,
    "task.tokenizer.size": 400,
    "task.batch_tokens": 512,
}

_GPT2 = {"config": "gpt2", "fields": _CHARACTERS, "tiny": _TINY_DECODER}
# Less memory and faster to compile, more to read and to write; see docs/performance.md.
SCANNED = {"model.compute.scan_layers": True, "model.compute.remat": "dots"}
BFLOAT16 = {"train.parameter_dtype": "bfloat16", "optimizer.moment_dtype": "bfloat16"}


def _gpt2_with(name: str, title: str, **fields: Any) -> Row:
    """The first row with other options of the step, beside the same peer."""
    same = {"config": "gpt2", "tiny": _TINY_DECODER | {"model.compute.dtype": "bfloat16"}}
    title = f"GPT-2 124M, {title}"
    return Row(f"gpt2_{name}", title, beside="gpt2", fields=_CHARACTERS | fields, **same)


# In order of importance: if time runs out, the last rows are left out.
ROWS = (
    Row("gpt2", "GPT-2 124M, B 32, T 1,024", peer="gpt2", **_GPT2),
    _gpt2_with("scanned", "scanned, products kept", **SCANNED),
    Row(
        "vit",
        "ViT-B/16 at 224, B 256",
        peer="vit",
        item="images",
        config="vit:B/16",
        fields={
            "task.path": "{folder}/images.npz",
            "task.batch_size": 256,
            "model.num_outputs": 1000,
            "model.compute.dtype": "bfloat16",
        },
        tiny={
            "model.num_layers": 1,
            "model.num_heads": 2,
            "model.width": 32,
            "model.image_size": 32,
            "model.compute.dtype": "float32",
            "task.batch_size": 4,
        },
    ),
    Row(
        "attention",
        "attention alone",
        job="attention",
        peer="attention",
        settings={
            "lengths": ((512, 1024, 2048, 4096, 8192, 16384), (64, 128)),
            "tokens": (16384, 256),
            "heads": ((12, 64), (2, 16)),
        },
    ),
    Row(
        "multi30k",
        "translation, :multi30k as shipped",
        peer="translation",
        config="translation:multi30k",
        fields=_PAIRS | {"model.vocab_size": 10_000},
        tiny=_TINY_PAIRS,
        settings={"dispatches": (24, 2)},
        patience=1.4,
    ),
    Row(
        "decoding",
        "writing with GPT-2 124M",
        job="decoding",
        peer="decoding",
        **_GPT2,
        settings={"batches": ((1, 8, 64), (1, 2)), "prompt": (64, 8), "new": (256, 16)},
    ),
    _gpt2_with("separate", "three products", **{"model.compute.fused_qkv": False}),
    _gpt2_with("whole", "all logits at once", **{"task.vocab_chunk": 0}),
    _gpt2_with("bfloat16", "bfloat16 kept", **BFLOAT16),
    _gpt2_with("cast", "cast once", **{"train.cast_once": True}),
    Row(
        "gpt2_8k",
        "GPT-2 124M, B 4, T 8,192",
        peer="gpt2",
        config="gpt2",
        fields=_CHARACTERS | {"model.context": 8192, "task.batch_size": 4},
        tiny=_TINY_DECODER | {"model.context": 128},
    ),
    Row(
        "llama",
        "Llama 0.5B, B 8, T 2,048",
        peer="llama",
        config="llama",
        fields=_CHARACTERS
        | {
            "model.vocab_size": 32_000,
            "model.num_layers": 24,
            "model.num_heads": 20,
            "model.num_kv_heads": 5,
            "model.width": 1280,
            "model.feed_forward_width": 3456,
            "model.context": 2048,
            "model.compute.dtype": "bfloat16",
            "model.compute.scan_layers": True,
            "model.compute.remat": "dots",
            "task.batch_size": 8,
            "task.validation_batch_size": 8,
            "task.vocab_chunk": 8000,
        },
        tiny=_TINY_DECODER | {"model.num_kv_heads": 1, "model.feed_forward_width": 64},
    ),
    Row(
        "bert",
        "BERT base, B 32, T 512",
        peer="bert",
        config="bert_pretrain:base",
        fields={
            "task.path": "{folder}/documents.txt",
            "task.batch_size": 32,
            "model.vocab_size": 30_522,
            "model.compute.dtype": "bfloat16",
        },
        tiny={
            "model.vocab_size": 400,
            "model.num_layers": 1,
            "model.num_heads": 2,
            "model.width": 32,
            "model.context": 64,
            "task.tokenizer.size": 400,
            "task.max_length": 64,
            "task.batch_size": 2,
        },
    ),
    Row(
        "transformer_base",
        "translation, :base",
        peer="translation",
        config="translation:base",
        fields=_PAIRS | {"model.vocab_size": 37_000, "model.compute.dtype": "bfloat16"},
        tiny=_TINY_PAIRS | {"model.compute.dtype": "float32"},
        settings={"dispatches": (12, 1)},
    ),
    Row(
        "t5",
        "T5 base, 16,384 tokens a batch",
        peer="t5",
        config="t5:base",
        fields=_PAIRS
        | {
            "task.prefix": "translate: ",
            "task.batch_tokens": 16_384,
            "model.compute.dtype": "bfloat16",
        },
        tiny=_TINY_PAIRS
        | {
            "model.head_dim": 16,
            "task.max_length": 64,
            "task.max_target_length": 64,
            "model.compute.dtype": "float32",
        },
    ),
    Row(
        "loop",
        "scripts/train.py, GPT-2 124M",
        job="loop",
        peer="gpt2",
        cache="gpt2",
        **_GPT2,
        settings={"steps": (60, 12)},
    ),
    Row(
        "sweep",
        "16 trials of a small GPT",
        job="sweep",
        item="trials",
        patience=2.0,
        settings={"trials": (16, 2), "steps": (100, 4), "size": ("", "tiny")},
    ),
)


def usual_rows(tiny: bool) -> list[str]:
    """The names of all rows; in a tiny run, of those that differ in options only the last."""
    beside = {row.beside: row.name for row in ROWS if row.beside}
    return [row.name for row in ROWS if not (tiny and row.beside) or row.name == beside[row.beside]]
