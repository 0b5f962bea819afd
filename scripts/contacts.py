"""Predicts which residues of proteins touch each other, from the attention of a language model.

python scripts/contacts.py --workdir=runs/esm2 --fasta=proteins.fasta --output=contacts
python scripts/contacts.py --workdir=runs/mine --fasta=known.fasta --contacts=known.tsv \
    --regression=contacts.json
python scripts/contacts.py --workdir=runs/mine --fasta=proteins.fasta \
    --regression=contacts.json --output=contacts

Attention maps, corrected for what all heads attend to, are weighted by a logistic regression (Rao
et al. 2021). Published ESM-2 weights hold one. For other runs --contacts fits it: a file with a
contact a line, the protein's name and two numbers of residues, separated by tabs; the regression is
written to --regression. Its score is the mean fraction of contacts among the n most probable pairs
of a protein with n residues, on the later half of the proteins, fitted on the earlier half.
--output is a folder for a picture of each protein and for contacts.tsv: pairs of residues that are
6 or more apart, and their probabilities from 0.05 on.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_string("fasta", None, "The proteins.")
flags.DEFINE_string("contacts", None, "Known contacts to fit the regression on.")
flags.DEFINE_string("regression", None, "The file of the regression, written with --contacts.")
flags.DEFINE_string("output", None, "The folder to write pictures and probabilities to.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main() -> int:
    """Opens the run, fits or reads the regression, and predicts."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    if not values.fasta:
        raise ConfigError("which proteins? Give --fasta=FILE.")
    if not (values.output or values.contacts):
        raise ConfigError("where to? Give --output=FOLDER, or --contacts=FILE to fit.")
    if values.contacts and not values.regression:
        raise ConfigError("--contacts fits a regression: give --regression=FILE to write it to.")
    from transformer.data.proteins.contacts import read_contacts
    from transformer.data.proteins.fasta import read_fasta
    from transformer.decoding import contacts
    from transformer.files import write_text
    from transformer.runs.opening import open_run

    proteins = read_fasta(values.fasta)
    known = read_contacts(values.contacts, proteins) if values.contacts else None
    run: Any = open_run(workdir, values.checkpoint)
    tokenizer = run.task.load_tokenizer(workdir)
    features = [
        contacts.attention_features(run.model, run.params, tokenizer, protein.sequence)
        for protein in proteins
    ]
    result: dict[str, Any] = {"proteins": len(proteins)}
    if known is not None:
        result |= _judged(features, known)
        regression = contacts.fit_regression(features, known)
        text = {name: array.tolist() for name, array in regression._asdict().items()}
        write_text(Path(values.regression), json.dumps(text))
    elif values.regression:
        regression = _read(Path(values.regression), len(features[0]))
    else:
        regression = contacts.own_regression(run.params)
        if regression is None:
            raise ConfigError(
                f"{workdir} holds no regression of contacts: give --regression, or --contacts to "
                f"fit one."
            )
    if values.output:
        _write(Path(values.output), proteins, features, regression, known)
    if values.json:
        command_line.print_json(result)
    else:
        print("  ".join(f"{name} {value}" for name, value in result.items()))
    return 0


def _write(
    folder: Path, proteins: list, features: list, regression: Any, known: list | None
) -> None:
    """A table of all contacts, and a picture of each protein."""
    from transformer.decoding import contacts
    from transformer.files import write_text
    from transformer.pictures.contacts import draw_contacts

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for place, (protein, maps) in enumerate(zip(proteins, features, strict=True)):
        found = contacts.contacts(maps, regression)
        for first, second, probability in contacts.likely_pairs(found):
            lines.append(f"{protein.name}\t{first + 1}\t{second + 1}\t{probability:.4f}\n")
        truth = None if known is None else known[place]
        path = folder / f"{place + 1:03}.png"
        draw_contacts(found, path, title=protein.name, known=truth)
    write_text(folder / "contacts.tsv", "".join(lines))


def _judged(features: list, known: list) -> dict[str, float]:
    """P@L of the later half of the proteins, by a regression on the earlier half."""
    import numpy as np

    from transformer.decoding import contacts

    half = len(known) // 2
    if not half:
        return {}
    regression = contacts.fit_regression(features[:half], known[:half])
    scores = [
        contacts.precision(contacts.contacts(maps, regression), truth)
        for maps, truth in zip(features[half:], known[half:], strict=True)
    ]
    return {"precision_at_length": round(float(np.mean(scores)), 4)}


def _read(path: Path, num_maps: int) -> Any:
    """A regression that was written before.

    Raises:
        DataError: if the file is none, or of another model.
    """
    import numpy as np

    from transformer.data.reading.json_text import read_json_file
    from transformer.decoding.contacts import Regression
    from transformer.errors import DataError

    content = read_json_file(path)
    if not isinstance(content, dict) or content.keys() != set(Regression._fields):
        raise DataError(f"{path} is no regression that this script has written.")
    try:
        weight, bias = (np.array(content[name], np.float32) for name in Regression._fields)
    except (TypeError, ValueError):
        raise DataError(f"{path} is damaged: expected lists of numbers.") from None
    if weight.shape != (num_maps,) or bias.shape != (1,):
        raise DataError(
            f"{path} has weights for {weight.size} attention heads, and the model has {num_maps}."
        )
    return Regression(weight, bias)


if __name__ == "__main__":
    command_line.run(main)
