"""A run folder made of published weights, which other scripts open like one that was trained."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from transformer.training.sections import OPTIONAL_SECTIONS, build, section
from transformer.data.reading.library_errors import PanicError, in_our_words
from transformer.data.tokenizers.kinds.marian import FILES
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, SentenceTokenizer
from transformer.data.tokenizers.sentences import LibrarySentenceTokenizer
from transformer.data.tokenizers.text import LibraryTextTokenizer
from transformer.errors import DataError
from transformer.interop.families.marian import read_marian_tokenizer
from transformer.interop.families.t5 import SENTENCEPIECE
from transformer.interop.generation import writing_fields
from transformer.interop.opening import Opened, open_published
from transformer.interop.published import Published, read_source
from transformer.interop.searches import begin_of, read_searches
from transformer.interop.side_files import SETTINGS
from transformer.interop.tokenizers.decoders import decoder_tokenizer
from transformer.interop.tokenizers.t5 import read_t5_tokenizer
from transformer.runs.folders import require_new, write_run
from transformer.runs.importing_encoders import encoder_run
from transformer.tasks.parts.protocol import tokenizer_digest
from transformer.training.experiment import initial_parameters
from transformer.training.layers import laid_out
from transformer.training.selection import by_path, from_paths

# Tokens of a window when an imported language model is evaluated or trained further.
_MOST_TOKENS = 2048
# Tokens of a source and of a target, where an encoder-decoder does not say.
_MAX_SOURCE, _MAX_TARGET = 512, 128
_ENORMOUS = 1 << 20
# Characters that tokenizers treat in all of their ways.
_SAMPLE = "Ab1 \u00e9e\u0301 \ufb01 \u017f \uff21 \u4e2d\u6587 \u0627\u0644 \U0001f600 \u3000\t.\n"


class Run(NamedTuple):
    """What a run has beside its parameters.

    Attributes:
        task: the section of its config.
        tokenizer: with methods `save` and `vocab_size`; None where there is no text.
        text: of the tokenizer, which the digest is made of.
        files: further files of the run, their text by name.
    """

    task: ConfigDict
    tokenizer: Any = None
    text: str = ""
    files: Mapping[str, str] = MappingProxyType({})


class Imported(NamedTuple):
    """All that a run folder of a published checkpoint will hold.

    Attributes:
        published: what was read, without what the run does not keep.
        config: of the run.
        run: what it has beside its parameters.
    """

    published: Published
    config: ConfigDict
    run: Run


def import_published(
    source: Path,
    workdir: Path,
    *,
    tokenizer: Path | None = None,
    max_length: int | None = None,
    ignore: str | None = None,
    scan_layers: bool = False,
) -> Published:
    """Writes a run folder with the weights of a published checkpoint as its step 0.

    Args:
        source: see `read_run`.
        workdir: the folder to make; it must be empty or missing. It is there as a whole or not.
        tokenizer: see `read_run`.
        max_length: see `read_run`.
        ignore: see `read_run`.
        scan_layers: stacks the parameters of all layers; see `nn.stack.Stack`.

    Returns:
        What was read, without what the run does not keep.

    Raises:
        DataError: see `read_run`.
        WorkdirError: if the folder holds something, or is none.
    """
    require_new(workdir)
    published, config, run = read_run(
        source, tokenizer=tokenizer, max_length=max_length, ignore=ignore
    )
    config.model.scan_layers = scan_layers
    build("model", config.model)  # Refuses more layers than are compiled one by one.
    write_run(
        workdir,
        config,
        laid_out(from_paths(published.params), scanned=scan_layers),
        tokenizer=run.tokenizer,
        labels=published.labels,
        fingerprint=tokenizer_digest(run.text) if run.tokenizer is not None else "",
        files=run.files,
    )
    return published


def read_run(
    source: Path,
    *,
    tokenizer: Path | None = None,
    max_length: int | None = None,
    ignore: str | None = None,
) -> Imported:
    """Reads a published checkpoint as the run it will be; nothing is written.

    A checkpoint with all that its job needs keeps just that, as a trained run would. One with less
    keeps all that it has, to embed with and to begin from.

    Args:
        source: a folder with `config.json` and safetensors, or a file; see `open_published`.
        tokenizer: a file; None takes that of the source.
        max_length: tokens of a row in the run; None takes what is usual, or what the model has.
        ignore: pattern of the names of arrays to leave out though they are not known.

    Raises:
        DataError: if the checkpoint cannot be read, is of a model that is not known here, or its
            tokenizer has more tokens than it.
    """
    opened = open_published(source, tokenizer)
    prepare = _RUNS[opened.family.name]
    published = read_source(opened.source, opened.family, ignore)
    run = prepare(opened, published, max_length)
    size = published.model.get("vocab_size")
    if run.tokenizer is not None:
        _require_usable(run.tokenizer, source)
    if run.tokenizer is not None and size is not None and run.tokenizer.vocab_size > size:
        raise DataError(
            f"{source}: the tokenizer has {run.tokenizer.vocab_size} tokens, and the model's table "
            f"{size}: they do not belong together."
        )
    config = ConfigDict()
    config.model = section("model", opened.family.name, **published.model)
    config.task = run.task
    for name in ("optimizer", "train", "mesh", *OPTIONAL_SECTIONS):
        config[name] = section(name)
    return Imported(_of_the_job(published, config), config, run)


def _decoder(opened: Opened, published: Published, max_length: int | None) -> Run:
    """A language model continues texts."""
    source, size = opened.source, published.model["vocab_size"]
    if opened.tokenizer is not None:
        tokenizer = LibraryTextTokenizer(parse_tokenizer_json(opened.tokenizer, source.where))
    else:
        kind = source.config["model_type"]
        with in_our_words(f"{source.where} holds no tokenizer that can be used"):
            tokenizer = LibraryTextTokenizer(
                decoder_tokenizer(source.files, source.where, kind, size)
            )
    context = min(max_length or _MOST_TOKENS, published.model["context"])
    writing = opened.writing or writing_fields(opened.source.files)
    task = section("task", published.job, context=context, batch_size=1, **writing)
    return Run(task, tokenizer, tokenizer.identity())


def _images(opened: Opened, published: Published, max_length: int | None) -> Run:
    """A classifier of images."""
    channels = published.model["channels"]
    return Run(section("task", published.job, channels=channels, **published.preparation))


def _encoder(opened: Opened, published: Published, max_length: int | None) -> Run:
    """What the head is for."""
    task, read, files = encoder_run(opened, published, max_length)
    return Run(task, read.tokenizer, read.tokenizer.identity(), files)


def _text_to_text(opened: Opened, published: Published, max_length: int | None) -> Run:
    """Texts become texts; prefixes are in what is given to it.

    Raises:
        DataError: if there is no tokenizer.
    """
    folder, files = opened.source.where, opened.source.files
    there = [name for name in (TOKENIZER_FILE, SENTENCEPIECE) if (folder / name).is_file()]
    if opened.tokenizer is None and not there:
        raise DataError(f"{folder} has neither a {TOKENIZER_FILE} nor a {SENTENCEPIECE}.")
    size = published.model["vocab_size"]
    text = read_t5_tokenizer(folder, files, opened.tokenizer, size)
    tokenizer = LibrarySentenceTokenizer(parse_tokenizer_json(text, folder))
    longest = _longest_source(opened, max_length, None)
    # Of targets to train on; how long outputs are is said with how they are searched.
    written = max(2, min(_MAX_TARGET, longest))
    lengths = {"max_length": longest, "max_target_length": written}
    return _of_pairs(opened, published, tokenizer, None, prefix="", **lengths)


def _translation(opened: Opened, published: Published, max_length: int | None) -> Run:
    """Sentences become sentences.

    Raises:
        DataError: if the tokenizer's files are not in the folder, or another one was given.
    """
    if opened.tokenizer is not None:
        raise DataError(
            f"{opened.source.where}: the tokenizer of such a model is in three files beside it, "
            f"{', '.join(FILES)}. Leave --tokenizer out."
        )
    tokenizer = read_marian_tokenizer(opened.source.where, opened.source.files)
    positions = opened.source.config.whole("max_position_embeddings", 1024, least=2)
    longest = _longest_source(opened, max_length, positions)
    return _of_pairs(opened, published, tokenizer, positions, max_length=longest)


def _longest_source(opened: Opened, asked: int | None, positions: int | None) -> int:
    """Tokens of a source, its end included: what is asked for, or what the tokenizer says.

    Raises:
        DataError: if that is no number, or less than two.
    """
    settings = opened.source.files[SETTINGS]
    said = settings.number("model_max_length", float(_MAX_SOURCE), least=2.0)
    # An enormous number says that there is no end.
    found = asked or (_MAX_SOURCE if said > _ENORMOUS else int(said))
    return min(found, positions or found)


def _of_pairs(
    opened: Opened,
    published: Published,
    tokenizer: SentenceTokenizer,
    positions: int | None,
    **values: Any,
) -> Run:
    """A run of an encoder-decoder that searches as its publisher does.

    Raises:
        DataError: if the tokenizer ends texts with another token than the model.
    """
    files = opened.source.files
    published.model["begin_id"] = begin_of(files)
    searches = read_searches(files, tokenizer.end, positions)
    task = section("task", published.job, **searches._asdict(), **values)
    return Run(task, tokenizer, tokenizer.identity())


def _require_usable(tokenizer: Any, where: Path) -> None:
    """Refuses a tokenizer on which its library fails: what is compiled into it is damaged.

    Raises:
        DataError: naming the folder.
    """
    try:
        tokenizer.encode(_SAMPLE)
    except PanicError as error:
        raise DataError(f"{where} holds a tokenizer that is damaged: {error}") from None
    except DataError:
        # It need not know all of these characters.
        return


_RUNS: dict[str, Callable[[Opened, Published, int | None], Run]] = {
    "bert": _encoder,
    "gemma": _decoder,
    "gpt": _decoder,
    "llama": _decoder,
    "mixtral": _decoder,
    "t5": _text_to_text,
    "vaswani": _translation,
    "vit": _images,
}


def _of_the_job(published: Published, config: Any) -> Published:
    """Without parameters that a complete job has no use for, such as the pooler of a tagger."""
    task = build("task", config.task)
    model = build("model", {**config.model, "scan_layers": True}).clone(scan_layers=False)
    wanted = _paths_of_the_job(model, task, build("lora", config.lora))
    if not wanted <= published.params.keys():
        return published
    left = [path for path in published.params if path not in wanted]
    params = {path: array for path, array in published.params.items() if path in wanted}
    return published._replace(params=params, unused=[*published.unused, *left])


@functools.lru_cache(maxsize=8)
def _paths_of_the_job(model: Any, task: Any, lora: Any) -> frozenset[str]:
    """The paths of the parameters that a job uses."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda key: initial_parameters(model, task, lora, key), key)
    return frozenset(by_path(nn.meta.unbox(shapes)))
