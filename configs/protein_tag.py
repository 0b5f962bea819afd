"""An ESM fine-tuned to label residues, for example with secondary structure.

    pip install -e '.[proteins,tensorboard]'
    python scripts/train.py --config=configs/protein_mlm.py --workdir=runs/esm
    python scripts/train.py --config=configs/protein_tag.py --workdir=runs/structure \
        --config.init.workdir=runs/esm --config.task.train=train.fasta
    python scripts/predict.py --workdir=runs/structure <<< MKTAYIAKQRQISFVKSHFSRQ

The files have three lines for each protein: `>` and a name, the residues, and a letter for each.
There is no embedded data. `benchmarks/disorder.py` makes files of disordered residues: 200 steps
after `protein_mlm.py:proteins` have 74.4 percent right (seed 0), logistic regression 76.0.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model", "esm", num_layers=4, num_heads=4, width=128, context=1026, dropout_rate=0.1
    )
    config.task = section(
        "task",
        "tagging",
        # Nothing is embedded, and the sentences of other jobs are no residues.
        train="train.fasta",
        tokenizer={"kind": "residues"},
        max_length=256,
        batch_size=16,
    )
    config.optimizer = section(
        "optimizer", learning_rate=5e-4, schedule="linear", warmup="10%", weight_decay=0.01
    )
    config.train = section(
        "train", duration="1000 steps", evaluate_every="100 steps", save_every="250 steps"
    )
    return complete(config, variant)
