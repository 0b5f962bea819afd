"""A decoder that writes proteins, residue by residue.

    pip install -e '.[proteins,tensorboard]'
    python scripts/train.py --config=configs/protein_lm.py --workdir=runs/peptides
    python scripts/generate.py --workdir=runs/peptides --prompt=GLF
    python scripts/train.py --config=configs/protein_lm.py --workdir=runs/mine \
        --config.task.path=my.fasta.gz --config.model.context=512

Default: a Llama of 4 layers and width 128 on the peptides of the package `modlamp`, one a line, 600
steps of 16 windows of 128 residues. On Swiss-Prot 400 steps have 2.868 nats a residue
(single residues: 2.906; `docs/proteins.md`).
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model", "llama", num_layers=4, num_heads=4, num_kv_heads=4, width=128, context=128
    )
    config.task = section(
        "task",
        "language_modeling",
        embedded="peptides",
        # Windows have the length of the model's context: overriding one overrides both.
        context=config.model.get_ref("context"),
        batch_size=16,
        validation_batch_size=64,
        # A protein is a line.
        stop="\n",
    )
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="50 steps")
    config.train = section(
        "train",
        duration="600 steps",
        evaluate_every="100 steps",
        save_every="100 steps",
        steps_per_dispatch=10,
    )
    return complete(config, variant)
