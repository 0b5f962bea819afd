"""An ESM-2 trained from nothing on proteins: masked residues.

    pip install -e '.[proteins,tensorboard]'
    python scripts/train.py --config=configs/protein_mlm.py --workdir=runs/esm
    python scripts/train.py --config=configs/protein_mlm.py:proteins --workdir=runs/proteins \
        --config.task.path=proteins.fasta.xz

Default: 3,665 peptides of the package `modlamp`, 4 layers of width 128, 1,000 steps of 64 rows of
64 tokens. Measured on one core of an Intel Xeon among many other jobs, so that the time says
little (20 minutes; alone some 3 times faster). Held-out peptides, no relatives of those to train
on: 2.506 nats a predicted residue, where unigram entropy is 2.878; of those a fifth is not hidden
and can be read off in part. Where all that is predicted is masked: 2.664.

Variants, after a colon:

- `proteins`: for a FASTA file of many proteins; all that is predicted is masked. Swiss-Prot (23.6
  million residues, no close relatives): 2.802 nats on the 2 percent held out with 15 percent
  hidden, where single residues have 2.890, after 52 minutes of processor time of one core. Methods
  without training have 2.834 (`benchmarks/residues.py`).
- `proteins_gpu`: the same for a GPU, 8 layers of width 512 (25.2 million parameters), 7,500 steps
  of 256 rows of 258 tokens. Swiss-Prot: 2.518 nats at step 7,000, after 6 minutes of an H200.
- `8M`, `35M`, `150M`, `650M`, `3B`, `15B`: the published sizes; counted, not trained.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section("model", "esm", num_layers=4, num_heads=4, width=128, context=1026)
    config.task = section(
        "task",
        "masked_lm",
        embedded="peptides",
        next_sentence=False,
        tokenizer={"kind": "residues"},
        max_length=64,
        batch_size=64,
    )
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="100 steps", beta2=0.98)
    config.train = section(
        "train",
        duration="1000 steps",
        evaluate_every="100 steps",
        save_every="100 steps",
        steps_per_dispatch=10,
    )
    return complete(config, variant, VARIANTS)


def _published(num_layers: int, width: int, num_heads: int) -> dict:
    """A published size, with the batches and the learning rate of Lin et al. 2023."""
    return {
        "model": {
            "num_layers": num_layers,
            "width": width,
            "num_heads": num_heads,
            "compute": {"scan_layers": num_layers > 12},
        },
        "task": {"max_length": 1026, "batch_size": 2048},
        "optimizer": {"learning_rate": 4e-4, "schedule": "linear", "warmup": "2000 steps"},
        "train": {"duration": "500000 steps", "evaluate_every": "1%", "save_every": "1%"},
    }


# Rows show a part of proteins that are longer, and all that is predicted is hidden.
_PROTEINS = {
    "model": {"init_scale": 0.09},
    "task": {
        "max_length": 130,
        "batch_size": 16,
        "validation_batch_size": 64,
        "validation_fraction": 0.02,
        # A row has more to learn from than with the 15 percent by which runs are compared.
        "masking_rate": 0.4,
        "validation_masking_rate": 0.15,
        "mask_fraction": 1.0,
        "random_fraction": 0.0,
    },
    "optimizer": {
        "algorithm": "muon",
        "learning_rate": 3e-3,
        "warmup": "100 steps",
        "final_fraction": 0.0,
        "weight_decay": 0.01,
    },
    "train": {
        "duration": "11500 steps",
        "evaluate_every": "1000 steps",
        "save_every": "500 steps",
        "validation_batches": 10,
        "steps_per_dispatch": 1,
    },
}
VARIANTS = {
    "proteins": _PROTEINS,
    "proteins_gpu": {
        "model": {
            "num_layers": 8,
            "num_heads": 8,
            "width": 512,
            "init_scale": 0.045,
            "compute": {"dtype": "bfloat16"},
        },
        "task": _PROTEINS["task"]
        | {
            "max_length": 258,
            "batch_size": 256,
            "validation_batch_size": 256,
            "masking_rate": 0.25,
        },
        "optimizer": _PROTEINS["optimizer"]
        | {"learning_rate": 2e-3, "warmup": "300 steps", "weight_decay": 0.1},
        # All proteins held out are evaluated.
        "train": {
            "duration": "7500 steps",
            "evaluate_every": "500 steps",
            "save_every": "2500 steps",
            "steps_per_dispatch": 1,
        },
    },
    "8M": _published(6, 320, 20),
    "35M": _published(12, 480, 20),
    "150M": _published(30, 640, 20),
    "650M": _published(33, 1280, 20),
    "3B": _published(36, 2560, 40),
    "15B": _published(48, 5120, 40),
}
