"""Scores mutations of a protein with a language model that has seen no measurement of them.

python scripts/score_mutations.py --workdir=runs/esm --sequence=MKTAYIAKQR <<< "A4V"
python scripts/score_mutations.py --workdir=runs/esm --fasta=protein.fasta \
    --picture=mutations.png < variants.txt

A line of standard input is a variant: `A23V` puts V where the sequence has A as residue 23; several
mutations have colons between, and `WT` is the sequence itself. Behind a tab may be a measured
number, with which the scores are correlated. A score is the sum over mutations of the logarithm of
how much more likely the new residue is than the old one, with the residue masked (Meier et al.
2021, "masked marginals"); above 0 the model expects the variant rather than the sequence.
"""

from pathlib import Path
from typing import Any

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_string("sequence", None, "The residues of the protein.")
flags.DEFINE_string("fasta", None, "A FASTA file whose first sequence is the protein.")
flags.DEFINE_bool("masked", True, "Masks each residue; otherwise the protein is read once.")
flags.DEFINE_string("picture", None, "A .png to write: the scores of all single mutations.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main() -> int:
    """Opens the run, scores the variants of standard input, and draws all."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    if (values.sequence is None) == (values.fasta is None):
        raise ConfigError("which protein? Give --sequence=RESIDUES or --fasta=FILE.")
    from transformer.checks import require_writable_file
    from transformer.data.proteins.fasta import checked_residues, read_fasta
    from transformer.data.proteins.mutations import read_variants
    from transformer.data.tokenizers.residues import AMINO_ACIDS
    from transformer.decoding.marginals import MutationScores
    from transformer.pictures.mutations import draw_mutations
    from transformer.runs.opening import open_run

    if values.picture:
        require_writable_file(Path(values.picture), "--picture")
    if values.fasta is not None:
        sequence = read_fasta(values.fasta)[0].sequence
    else:
        sequence = checked_residues(values.sequence, "--sequence", 1, "given")
    variants = read_variants(command_line.standard_input_lines(), sequence)
    run: Any = open_run(workdir, values.checkpoint)
    if run.config.task.name != "masked_lm":
        raise ConfigError(
            f"{workdir} was trained for {run.config.task.name}: mutations are scored by a run of "
            f"masked_lm."
        )
    scores = MutationScores(
        run.model,
        run.params,
        run.task.load_tokenizer(workdir),
        sequence,
        None if values.picture else sorted({m.place for v in variants for m in v.mutations}),
        masked=values.masked,
    )
    found = [scores.of(variant.mutations) for variant in variants]
    if values.picture:
        draw_mutations(scores.table(AMINO_ACIDS), sequence, AMINO_ACIDS, Path(values.picture))
    result = {
        "variants": [
            {"variant": variant.text, "score": score, "measured": variant.measured}
            for variant, score in zip(variants, found, strict=True)
        ],
        **_agreement(found, [variant.measured for variant in variants]),
    }
    if values.json:
        command_line.print_json(result)
        return 0
    for variant, score in zip(variants, found, strict=True):
        print(f"{variant.text}\t{score:.4f}")
    if "rank_correlation" in result:
        command_line.say(f"Rank correlation with the measured: {result['rank_correlation']:.4f}")
    return 0


def _agreement(scores: list[float], measured: list[float | None]) -> dict[str, float]:
    """The rank correlation of scores and measured numbers; nothing if there are none."""
    import numpy as np

    from transformer.scoring.correlation import rank_correlation

    known = [
        (score, number)
        for score, number in zip(scores, measured, strict=True)
        if number is not None
    ]
    if len(known) < 2:
        return {}
    return {"rank_correlation": rank_correlation(*np.array(known).T)}


if __name__ == "__main__":
    command_line.run(main)
