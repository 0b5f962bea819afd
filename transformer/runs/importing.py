"""Creates a run folder from published weights; other scripts open it like a trained run."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
from ml_collections import ConfigDict

from transformer.data.reading.library_errors import PanicError
from transformer.data.tokenizers.protocol import Tokenizer
from transformer.errors import DataError
from transformer.interop.family import Published, RunParts
from transformer.interop.opening import family_of, open_published
from transformer.interop.published import read_source
from transformer.nn.compute import Compute, computing
from transformer.nn.layouts import laid_out_like
from transformer.runs.folders import require_new, write_run
from transformer.tasks.parts.protocol import Task
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.training.experiment import parameter_shapes
from transformer.training.lora import LoRA
from transformer.training.sections import OPTIONAL_SECTIONS, build, section
from transformer.training.selection import by_path, from_paths

# Characters that exercise all parts of a tokenizer.
_SAMPLE = "Ab1 \u00e9e\u0301 \ufb01 \u017f \uff21 \u4e2d\u6587 \u0627\u0644 \U0001f600 \u3000\t.\n"


class Imported(NamedTuple):
    """Everything that the run folder of a published checkpoint will hold.

    Attributes:
        published: what was read, without the arrays that the run does not keep.
        config: the config of the run.
        run: everything in the run except its parameters.
    """

    published: Published
    config: ConfigDict
    run: RunParts


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
        workdir: the folder to create; must be empty or missing. It is written completely or not at
            all.
        tokenizer: see `read_run`.
        max_length: see `read_run`.
        ignore: see `read_run`.
        scan_layers: whether to stack the parameters of all layers; see `nn.stack.Stack`.

    Returns:
        What was read, without the arrays that the run does not keep.

    Raises:
        DataError: see `read_run`.
        WorkdirError: if the path is not an empty or missing folder.
    """
    require_new(workdir)
    published, config, run = read_run(
        source, tokenizer=tokenizer, max_length=max_length, ignore=ignore
    )
    config.model.compute.scan_layers = scan_layers
    # Building the model refuses more layers than can be compiled one by one.
    model = build("model", config.model)
    task, lora = build("task", config.task), build("lora", config.lora)
    write_run(
        workdir,
        config,
        laid_out_like(from_paths(published.params), _parameters_of(model, task, lora)),
        tokenizer=run.tokenizer,
        labels=published.labels,
        fingerprint="" if run.tokenizer is None else tokenizer_digest(run.tokenizer),
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
    """Reads a published checkpoint and prepares a run from it, without writing anything.

    If the checkpoint has all parameters that its job needs, only those are kept, as in a trained
    run. If some are missing, all are kept, to compute embeddings or to begin training from.

    Args:
        source: a folder with `config.json` and safetensors, or a file; see `open_published`.
        tokenizer: a tokenizer file; None takes the one of the source.
        max_length: tokens of a row in the run; None takes the default, or the model's limit.
        ignore: pattern of the names of unknown arrays to leave out.

    Raises:
        DataError: if the checkpoint cannot be read, its model is unknown here, or its tokenizer has
            more tokens than the model.
    """
    opened = open_published(source, tokenizer)
    family = family_of(opened.config)
    published = read_source(opened, family, ignore)
    run = family.run(opened, published, max_length)
    published = published._replace(model=published.model | run.model)
    size = published.model.get("vocab_size")
    if run.tokenizer is not None:
        _require_usable(run.tokenizer, source)
    if run.tokenizer is not None and size is not None and run.tokenizer.vocab_size > size:
        raise DataError(
            f"{source}: the tokenizer has {run.tokenizer.vocab_size} tokens, and the model's table "
            f"{size}: they do not belong together."
        )
    config = ConfigDict()
    config.model = section("model", family.name, **published.model)
    config.task = section("task", published.job, **run.task)
    for name in ("optimizer", "train", "mesh", *OPTIONAL_SECTIONS):
        config[name] = section(name)
    return Imported(_of_the_job(published, config), config, run)


def _require_usable(tokenizer: Tokenizer, where: Path) -> None:
    """Refuses a tokenizer on which its library fails because its compiled data are damaged.

    Raises:
        DataError: names the folder.
    """
    try:
        tokenizer.encode(_SAMPLE)
    except PanicError as error:
        raise DataError(f"{where} holds a tokenizer that is damaged: {error}") from None
    except DataError:
        # The tokenizer need not know all of these characters.
        return


def _of_the_job(published: Published, config: Any) -> Published:
    """Drops parameters that a complete job does not use, such as the pooler of a tagger."""
    task = build("task", config.task)
    # The number of layers was checked already.
    model = build("model", {**config.model, "compute": Compute(scan_layers=True)})
    model = computing(model, scan_layers=False)
    wanted = _paths_of_the_job(model, task, build("lora", config.lora))
    if not wanted <= published.params.keys():
        return published
    left = [path for path in published.params if path not in wanted]
    params = {path: array for path, array in published.params.items() if path in wanted}
    return published._replace(params=params, unused=[*published.unused, *left])


@functools.lru_cache(maxsize=8)
def _paths_of_the_job(model: nn.Module, task: Task, lora: LoRA) -> frozenset[str]:
    """The paths of the parameters that a job uses."""
    return frozenset(by_path(_parameters_of(model, task, lora)))


def _parameters_of(model: nn.Module, task: Task, lora: LoRA) -> Any:
    """The shapes of the parameters that a job uses."""
    return nn.meta.unbox(parameter_shapes(model, task, lora))
