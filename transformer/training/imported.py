"""A run folder made of published weights, which other scripts open like one that was trained."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from transformer.config import OPTIONAL_SECTIONS, build, section
from transformer.data.tokenizers import Tokenizer
from transformer.data.word_pieces import WordPieceTokenizer, make_word_piece_tokenizer
from transformer.errors import DataError
from transformer.interop import llama
from transformer.interop.bert import read_bert
from transformer.interop.published import Published, read_json
from transformer.interop.vit import read_vit
from transformer.tasks.base import tokenizer_digest
from transformer.training.experiment import initial_parameters
from transformer.training.run_folders import require_new, write_run
from transformer.training.selection import by_path, from_paths

# Tokens of a window when an imported language model is evaluated or trained further.
_MOST_TOKENS = 2048
# Rows as long as those of most uses; positions there are for more.
_MAX_LENGTH = 256


def import_published(source: Path, workdir: Path, max_length: int | None = None) -> Published:
    """Writes a run folder with the weights of a published checkpoint as its step 0.

    Args:
        source: a folder with `config.json` and safetensors.
        workdir: the folder to make; it must be empty or missing.
        max_length: see `import_bert`.

    Returns:
        What was read, without what the run does not keep.

    Raises:
        DataError: if the checkpoint cannot be read, or is of a model that is not known here.
        WorkdirError: if the folder holds something, or is none.
    """
    kind = read_json(source / "config.json").get("model_type", "bert")
    if kind == "bert":
        return import_bert(source, workdir, max_length)
    if kind == "vit":
        return import_vit(source, workdir)
    if kind in llama.KINDS:
        return import_llama(source, workdir)
    known = ", ".join(("bert", "vit", *llama.KINDS))
    raise DataError(
        f"{source / 'config.json'} is of a model {kind!r}: what can be read are {known}."
    )


def import_llama(source: Path, workdir: Path) -> Published:
    """Writes a run folder with the weights of a Llama or its kin as its step 0.

    Args:
        source: a folder with `config.json`, safetensors and `tokenizer.json`.
        workdir: the folder to make; it must be empty or missing.

    Returns:
        What was read.

    Raises:
        DataError: if the checkpoint cannot be read, or its tokenizer has more tokens than it.
        WorkdirError: if the folder holds something, or is none.
    """
    require_new(workdir)
    tokenizer = Tokenizer.load(source / "tokenizer.json")
    published = llama.read_llama(source)
    model = published.model
    if tokenizer.vocab_size > model["vocab_size"]:
        raise DataError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} tokens, and the model's table "
            f"{model['vocab_size']}: they do not belong together."
        )
    config = ConfigDict()
    config.model = section("model", "llama", **model)
    config.task = section(
        "task", published.job, context=min(model["context"], _MOST_TOKENS), batch_size=1
    )
    for name in ("optimizer", "train", "mesh", *OPTIONAL_SECTIONS):
        config[name] = section(name)
    write_run(
        workdir,
        config,
        from_paths(published.params),
        tokenizer=tokenizer,
        labels=(),
        fingerprint=tokenizer_digest(tokenizer.to_json()),
    )
    return published


def import_vit(source: Path, workdir: Path) -> Published:
    """Writes a run folder with the weights of a ViT checkpoint as its step 0.

    Args:
        source: a folder with `config.json`, `model.safetensors` and `preprocessor_config.json`.
        workdir: the folder to make; it must be empty or missing.

    Returns:
        What was read.

    Raises:
        DataError: if the checkpoint cannot be read.
        WorkdirError: if the folder holds something, or is none.
    """
    require_new(workdir)
    published = read_vit(source)
    model = published.model
    config = ConfigDict()
    config.model = section("model", "vit", **model, num_outputs=len(published.labels) or None)
    config.task = section(
        "task",
        published.job,
        image_size=model["image_size"],
        channels=model["channels"],
        **published.preparation,
    )
    for name in ("optimizer", "train", "mesh", *OPTIONAL_SECTIONS):
        config[name] = section(name)
    write_run(
        workdir,
        config,
        from_paths(published.params),
        tokenizer=None,
        labels=published.labels,
        fingerprint="",
    )
    return published


def import_bert(source: Path, workdir: Path, max_length: int | None = None) -> Published:
    """Writes a run folder with the weights of a BERT checkpoint as its step 0.

    A checkpoint with all that its job needs keeps just that, as a trained run would. One with less
    keeps all that it has, to embed with and to begin from.

    Args:
        source: a folder with `config.json`, `model.safetensors` and a tokenizer.
        workdir: the folder to make; it must be empty or missing.
        max_length: tokens of a row in the run; None takes 256, or what the model has.

    Returns:
        What was read, without what the run does not keep.

    Raises:
        DataError: if the checkpoint cannot be read.
        WorkdirError: if the folder holds something, or is none.
    """
    require_new(workdir)
    published = read_bert(source)
    context = published.model["context"]
    tokenizer = _tokenizer(source, published.preparation["lowercase"])
    if tokenizer.vocab_size > published.model["vocab_size"]:
        raise DataError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} tokens, and the model's table "
            f"{published.model['vocab_size']}: they do not belong together."
        )
    values: dict[str, Any] = {}
    if published.job == "text_classification" and len(published.labels) == 1:
        # One number is a regression; the task's own data would have to be given.
        values = {"regression": True, "train": str(source)}
    if published.job == "masked_lm":
        values = {"next_sentence": "next_sentence/kernel" in published.params}
    config = ConfigDict()
    config.model = section(
        "model", "bert", **published.model, num_outputs=len(published.labels) or None
    )
    config.task = section(
        "task",
        published.job,
        max_length=min(max_length or _MAX_LENGTH, context),
        lowercase=tokenizer.lowercase,
        **values,
    )
    for name in ("optimizer", "train", "mesh", *OPTIONAL_SECTIONS):
        config[name] = section(name)
    published = _of_the_job(published, config)
    write_run(
        workdir,
        config,
        from_paths(published.params),
        tokenizer=tokenizer,
        labels=published.labels,
        fingerprint=tokenizer_digest(tokenizer.to_text()),
    )
    return published


def _of_the_job(published: Published, config: Any) -> Published:
    """Without parameters that a complete job has no use for, such as the pooler of a tagger."""
    task, model = build("task", config.task), build("model", config.model)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(
        lambda key: initial_parameters(model, task, build("lora", config.lora), key), key
    )
    wanted = by_path(nn.meta.unbox(shapes))
    if not wanted.keys() <= published.params.keys():
        return published
    left = [path for path in published.params if path not in wanted]
    params = {path: published.params[path] for path in wanted}
    return published._replace(params=params, unused=[*published.unused, *left])


def _tokenizer(source: Path, lowercase: bool) -> WordPieceTokenizer:
    for name in ("tokenizer.json", "vocab.txt"):
        if (source / name).is_file():
            return make_word_piece_tokenizer(
                str(source / name), [], vocab_size=1, lowercase=lowercase
            )
    raise DataError(f"{source} has neither a tokenizer.json nor a vocab.txt.")
