"""Creates run folders from existing parameters: imported or merged ones."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import jax
from ml_collections import ConfigDict

from transformer.checks import require_plain_path, require_writable_folder
from transformer.data.tokenizers.protocol import Tokenizer
from transformer.errors import WorkdirError
from transformer.files import making_folder, write_text
from transformer.tasks.parts.labels import save_labels
from transformer.training.checkpoints import Checkpoints
from transformer.training.holding import holding, is_empty
from transformer.training.notes import described
from transformer.training.saved_runs import write_config
from transformer.types import Params


def require_new(workdir: Path) -> None:
    """Refuses a folder that is not empty or cannot be created.

    Raises:
        WorkdirError: names the folder.
    """
    require_plain_path(workdir)
    require_writable_folder(workdir)
    if not is_empty(workdir):
        raise WorkdirError(f"{workdir} is not empty: give a new --workdir.")


def write_run(
    workdir: Path,
    config: ConfigDict,
    params: Params,
    *,
    tokenizer: Tokenizer | None,
    labels: tuple[str, ...],
    fingerprint: str,
    files: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes a run whose only checkpoint, of step 0, holds nothing but parameters.

    It is written under another name and moved when it is complete.

    Args:
        workdir: the folder to create; must be empty or missing.
        config: a config with all sections.
        params: a nested dict.
        tokenizer: the tokenizer of the run; None if there is no text.
        labels: names of the outputs; empty for none.
        fingerprint: fingerprint of the data, which begins with the digest of the tokenizer.
        files: text of further files, by name.
    """
    workdir = workdir.absolute()
    with making_folder(workdir) as part, holding(workdir):
        require_new(workdir)
        _write(part, config, params, tokenizer, labels, fingerprint, files)


def _write(
    folder: Path,
    config: ConfigDict,
    params: Params,
    tokenizer: Tokenizer | None,
    labels: tuple[str, ...],
    fingerprint: str,
    files: Mapping[str, str],
) -> None:
    """Writes the files of `write_run`; the config, which makes this a run folder, comes last."""
    if tokenizer is not None:
        tokenizer.save(folder)
    if labels:
        save_labels(labels, folder)
    for name, text in files.items():
        write_text(folder / name, text)
    metadata = {"data_fingerprint": fingerprint, **described(config, folder)}
    # Keeps memory use close to the size of the parameters.
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(params))
    with Checkpoints(folder, gigabytes_at_once=1 + largest // 10**9) as checkpoints:
        checkpoints.save(
            0,
            {"params": params},
            data={},
            metadata=metadata,
            validation_loss=None,
        )
        checkpoints.wait()
    write_config(config, folder)
