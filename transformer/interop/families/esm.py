"""ESM-2, the language model of proteins, in the layout of the library `transformers`."""

from collections.abc import Set
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import tokenizers
from jaxtyping import Array, Int

from transformer.data.reading.content import read_bounded
from transformer.data.reading.text import decode_text
from transformer.data.tokenizers.residues import SPECIAL_TOKENS, residue_library
from transformer.data.tokenizers.word_pieces import vocabulary_of_lines
from transformer.errors import ConfigError, DataError
from transformer.files import write_text
from transformer.interop.checked_values import refuse
from transformer.interop.encoder_configs import IRRELEVANT
from transformer.interop.encoder_runs import (
    JOBS,
    TrainedEncoder,
    encoder_head,
    encoder_run,
    problem_type,
    write_encoder_files,
)
from transformer.interop.family import Family, Head, Published, RunParts, Source, label_names
from transformer.interop.layout import (
    Entry,
    Shape,
    entries,
    parameter_shapes,
    require_counts,
    require_heads,
    require_sizes,
    same,
    single,
    vector,
)
from transformer.interop.side_files import CONFIG, SideFile, SideFiles
from transformer.interop.tokenizers.encoders import VOCABULARY, EncoderClass, no_tokenizer
from transformer.models.esm import ESM
from transformer.ops.positions import in_half_precision
from transformer.types import Json

_MODULES = {
    "token_embedding": "esm.embeddings.word_embeddings",
    "blocks/{}/attention_norm": "esm.encoder.layer.{}.attention.LayerNorm",
    "blocks/{}/attention/query": "esm.encoder.layer.{}.attention.self.query",
    "blocks/{}/attention/key": "esm.encoder.layer.{}.attention.self.key",
    "blocks/{}/attention/value": "esm.encoder.layer.{}.attention.self.value",
    "blocks/{}/attention/output": "esm.encoder.layer.{}.attention.output.dense",
    "blocks/{}/feed_forward_norm": "esm.encoder.layer.{}.LayerNorm",
    "blocks/{}/feed_forward/up": "esm.encoder.layer.{}.intermediate.dense",
    "blocks/{}/feed_forward/down": "esm.encoder.layer.{}.output.dense",
    "final_norm": "esm.encoder.emb_layer_norm_after",
    "pooler": "esm.pooler.dense",
    "masked_token/dense": "lm_head.dense",
    "masked_token/norm": "lm_head.layer_norm",
    "output": "classifier",
}
_TABLE = "esm.embeddings.word_embeddings.weight"
_FREQUENCIES = "rotary_embeddings.inv_freq"
# The text classifier has a dense layer in front, which is our pooler.
_CLASSIFIER = {
    "classifier.dense.": "esm.pooler.dense.",
    "classifier.out_proj.": "classifier.",
}
_IRRELEVANT = IRRELEVANT | {
    "pad_token_id": "a row of the table like any other",
    "hidden_act": "always gelu",
    **dict.fromkeys(("vocab_list", "esmfold_config"), "of models that fold"),
}
# Here it is the id that the model hides.
del _IRRELEVANT["mask_token_id"]
# Keys with a single supported value.
_ONLY: dict[str, object] = {
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
}


def _canonical(name: str) -> str | None:
    """Adds the prefix that bare encoders leave out, and renames the oldest names."""
    # Both are computed from the config; `_run` compares the frequencies.
    if name.endswith((_FREQUENCIES, "embeddings.position_ids")):
        return None
    for theirs, ours in _CLASSIFIER.items():
        name = name.replace(theirs, ours)
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    bare = name.startswith(("embeddings.", "encoder.", "pooler.", "contact_head."))
    return f"esm.{name}" if bare else name


def _exported(name: str, model: ESM, job: str) -> str:
    if job != "text_classification":
        return name
    if name.startswith("classifier."):
        return name.replace("classifier.", "classifier.out_proj.")
    return name.replace("esm.pooler.dense.", "classifier.dense.")


# -------------------------------------------------------------------------- theirs to ours


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    config.irrelevant(_IRRELEVANT)
    config.only(_ONLY)
    position = config.text_or_none("position_embedding_type") or "absolute"
    if position != "rotary":
        refuse(config.where, "position_embedding_type", position, "rotary, as in ESM-2,")
    # Null counts as false.
    for key in ("emb_layer_norm_before", "is_folding_model"):
        if config.flag(key, False):
            refuse(config.where, key, True, "false, as in ESM-2,")
    dropped = config.flag("token_dropout", False)
    if not dropped:
        config.irrelevant({"mask_token_id": "a row of the table like any other"})
    outputs = shapes.get("classifier.bias")
    found = {
        "vocab_size": config.whole("vocab_size"),
        "num_outputs": outputs[0] if outputs else None,
        "num_layers": config.whole("num_hidden_layers", 12),
        "num_heads": config.whole("num_attention_heads", 12),
        "width": config.whole("hidden_size", 768),
        "feed_forward_width": config.whole("intermediate_size", 3072),
        "context": config.whole("max_position_embeddings", 1026),
        "rope_base": config.positive("rope_theta", 10_000.0),
        "token_dropout": dropped,
        "mask_token": config.token("mask_token_id") if dropped else 0,
        "norm_epsilon": config.number("layer_norm_eps", 1e-12),
        "dropout_rate": config.number("hidden_dropout_prob", 0.1),
    }
    inner = "esm.encoder.layer.0.intermediate.dense.bias"
    sizes = (
        ("vocab_size", found["vocab_size"], _TABLE, 0),
        ("hidden_size", found["width"], _TABLE, 1),
        ("intermediate_size", found["feed_forward_width"], inner, 0),
    )
    require_sizes(where, shapes, sizes)
    layers = {"esm.encoder.layer.": ("num_hidden_layers", found["num_layers"])}
    require_counts(where, shapes, layers)
    heads = ("num_attention_heads", found["num_heads"])
    require_heads(where, heads, ("hidden_size", found["width"]))
    return found


def _run(source: Source, published: Published, max_length: int | None) -> RunParts:
    """The run, with the precision of the rotary frequencies, which only arrays show."""
    run = encoder_run("EsmTokenizer", source, published, max_length)
    model = ESM(**published.model)
    exact = _frequencies(model)
    precision = "float32"
    for name in source.arrays:
        if not name.endswith(_FREQUENCIES):
            continue
        stored = np.asarray(source.arrays[name], np.float32)
        if stored.shape != exact.shape:
            raise DataError(
                f"{source.where}: {name} has the shape {list(stored.shape)}, and the config asks "
                f"for {list(exact.shape)}."
            )
        if not np.allclose(stored, exact, rtol=1e-6, atol=0.0):
            rounded = np.asarray(in_half_precision(jnp.asarray(exact)))
            if not np.array_equal(stored, rounded):
                raise DataError(
                    f"{source.where}: {name} holds other rotary frequencies than those of "
                    f"rope_theta, {model.rope_base:g}."
                )
            precision = "float16"
    return run._replace(model={**run.model, "rope_precision": precision})


def _frequencies(model: ESM) -> np.ndarray:
    """The rotary frequencies of a model, `[H / 2]`."""
    head_dim = model.width // model.num_heads
    places = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return (1.0 / np.float32(model.rope_base) ** places).astype(np.float32)


def _head(files: SideFiles, paths: Set[str]) -> Head:
    """The job of the head, and the names of its outputs."""
    if "masked_token/bias" in paths:
        files[CONFIG].only({"tie_word_embeddings": True})
    else:
        files[CONFIG].irrelevant({"tie_word_embeddings": "there is no output layer of tokens"})
    return encoder_head(files, has_output="output/kernel" in paths)


def _tokenizer(files: SideFiles, folder: Path, names: dict[str, str]) -> tokenizers.Tokenizer:
    """ESM's tokenizer: the tokens of a `vocab.txt`."""
    path = folder / VOCABULARY
    if not path.is_file():
        raise no_tokenizer(folder)
    # Their library ignores white space around tokens.
    lines = decode_text(read_bounded(path), str(path)).split("\n")
    text = "\n".join(line.strip() for line in lines)
    vocabulary = vocabulary_of_lines(text, path)
    unknown = names.get("unk_token", "")
    if unknown not in vocabulary:
        raise DataError(f"{path} has no {unknown or 'unk_token'}, which stands for what it lacks.")
    return residue_library(vocabulary, unknown)


# ---------------------------------------------------------------------------- both ways


def _entries(model: ESM) -> list[Entry]:
    tokens = jnp.zeros((1, 1), jnp.int32)
    shapes = parameter_shapes(model, _use_all, tokens, depths={"num_layers": model.num_layers})
    count = model.num_layers * model.num_heads
    regression = "esm.contact_head.regression"
    others = {
        "masked_token/bias": vector("masked_token/bias", "lm_head.bias", (model.vocab_size or 0,)),
        "contact_head/weight": single(
            "contact_head/weight", f"{regression}.weight", (count,), (1, count)
        ),
        "contact_head/bias": same("contact_head/bias", f"{regression}.bias", (1,)),
    }
    return [*entries(shapes, _MODULES, others), _frequencies_entry(model)]


def _frequencies_entry(model: ESM) -> Entry:
    """The array of rotary frequencies, which is no parameter of ours."""
    frequencies = _frequencies(model)
    if model.rope_precision == "float16":
        frequencies = np.asarray(in_half_precision(jnp.asarray(frequencies)))
    name = f"esm.{_FREQUENCIES}"
    return Entry((), (name,), (frequencies.shape,), lambda arrays: [], lambda _: [frequencies])


def _use_all(model: ESM, tokens: Int[Array, "B T"]) -> None:
    """Calls every module that has parameters."""
    model.logits(model.masked(model(tokens), tokens))
    model.classify(tokens)


# -------------------------------------------------------------------------- ours to theirs


def _config(trained: TrainedEncoder[ESM]) -> Json:
    """Writes what `_fields` reads."""
    if trained.model.pooling != "cls" and trained.job == "text_classification":
        raise ConfigError(
            f"config.model.pooling is {trained.model.pooling!r}, and published classifiers read "
            f"the first token only: train with config.model.pooling=cls for an export."
        )
    model, tokenizer, paths = trained.model, trained.tokenizer, trained.paths
    if model.token_dropout and model.mask_token != tokenizer.mask:
        raise ConfigError(
            f"config.model.mask_token is {model.mask_token}, and the tokenizer's mask is token "
            f"{tokenizer.mask}."
        )
    plain = "ForMaskedLM" if "masked_token/bias" in paths else "Model"
    names = {job: name for name, job in JOBS.items()}
    suffix = names.get(trained.job, plain) if "output/kernel" in paths else plain
    return {
        "architectures": [f"Esm{suffix}"],
        "model_type": "esm",
        "vocab_size": model.vocab_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "hidden_size": model.width,
        "intermediate_size": model.feed_forward_width or 4 * model.width,
        "max_position_embeddings": model.context,
        "position_embedding_type": "rotary",
        "rope_theta": model.rope_base,
        "emb_layer_norm_before": False,
        "token_dropout": model.token_dropout,
        "mask_token_id": tokenizer.mask,
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout_prob": model.dropout_rate,
        "attention_probs_dropout_prob": model.dropout_rate,
        "pad_token_id": tokenizer.pad,
        "cls_token_id": tokenizer.start,
        "eos_token_id": tokenizer.separator,
        **problem_type(trained),
        **label_names(trained.labels),
    }


def _beside(trained: TrainedEncoder[ESM], folder: Path) -> list[str]:
    """As other encoders, and the `vocab.txt` that the library's own class reads."""
    notes = write_encoder_files(trained, folder)
    tokenizer = trained.tokenizer
    write_text(folder / VOCABULARY, "\n".join(tokenizer.tokens(range(tokenizer.vocab_size))))
    return notes


# The published class has no separator: the end of a sequence is its place.
_NAMES = {
    "unk_token": SPECIAL_TOKENS.unknown,
    "cls_token": SPECIAL_TOKENS.start,
    "pad_token": SPECIAL_TOKENS.pad,
    "mask_token": SPECIAL_TOKENS.mask,
    "eos_token": SPECIAL_TOKENS.separator,
}
_CLASS = EncoderClass(_tokenizer, _NAMES, (), separators=1, separator="eos_token")
FAMILIES = (
    Family(
        kinds=("esm",),
        name="esm",
        model=ESM,
        fields=_fields,
        config=_config,
        entries=_entries,
        head=_head,
        run=_run,
        beside=_beside,
        tokenizers={"EsmTokenizer": _CLASS},
        heads=("pooler", "masked_token", "output"),
        canonical=_canonical,
        exported=_exported,
        copies=lambda model: {"lm_head.decoder.weight": _TABLE},
    ),
)
