r"""ViT of the published sizes on images of your own.

    pip install -e '.[vision,tensorboard]'
    python scripts/train.py --config=configs/vit.py:Ti/16 --workdir=runs/vit \
        --config.task.path=photos
    python scripts/train.py --config=configs/vit.py:B/16 --workdir=runs/fine \
        --config.task.path=photos --config.init.workdir=runs/imported
    python scripts/train.py --config=configs/vit.py:B/16 --workdir=runs/probe \
        --config.task.path=photos --config.init.workdir=runs/imported \
        "--config.optimizer.frozen=^(?!output)"

`photos` is a folder with a folder of images for each class, a `.npz` file, or a folder with the
files of MNIST or CIFAR. The second command fine-tunes, at another resolution with
`--config.model.image_size=384`; the third trains the head alone.

Variants: `Ti/16`, `S/16`, `B/16`, `L/16`, `H/14`, as published (Dosovitskiy et al. 2021; Touvron
et al. 2021). Other sizes of patches: `--config.model.patch_size=32`. The recipe follows Steiner et
al. 2022 (medium augmentation, 300 epochs, of ImageNet a tenth of them warmup). It has not been
trained to a score.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "B/16") -> ConfigDict:
    """A published size."""
    config = ConfigDict()
    config.model = section("model", "vit", stochastic_depth_rate=0.1)
    config.task = section(
        "task",
        "image_classification",
        preparation={
            "image_size": config.model.get_oneway_ref("image_size"),
            "crop_fraction": 0.875,
        },
        augmentation={
            "resized_crop": 0.08,
            "flip": True,
            "rand_augment_ops": 2,
            "rand_augment_magnitude": 9.0,
            "mixup": 0.2,
        },
        channels=3,
        batch_size=1024,
    )
    config.optimizer = section(
        "optimizer", learning_rate=1e-3, warmup="10%", weight_decay=0.1, clip_norm=1.0
    )
    config.train = section("train", duration="300 epochs", evaluate_every="1%", save_every="1%")
    return complete(config, variant, VARIANTS)


def _published(num_layers: int, width: int, num_heads: int, patch_size: int = 16) -> dict:
    return {
        "model": {
            "num_layers": num_layers,
            "width": width,
            "num_heads": num_heads,
            "patch_size": patch_size,
        }
    }


VARIANTS = {
    "Ti/16": _published(12, 192, 3),
    "S/16": _published(12, 384, 6),
    "B/16": _published(12, 768, 12),
    "L/16": _published(24, 1024, 16),
    "H/14": _published(32, 1280, 16, patch_size=14),
}
