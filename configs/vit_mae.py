r"""A masked autoencoder (He et al. 2022): a ViT that is shown a few patches and draws the others.

    python scripts/train.py --config=configs/vit_mae.py --workdir=runs/mae
    python scripts/train.py --config=configs/vit_digits.py --workdir=runs/few \
        --config.init.workdir=runs/mae --config.task.label_fraction=0.1
    python scripts/train.py --config=configs/vit_mae.py --workdir=runs/mine \
        --config.task.path=photos --config.model.image_size=32 --config.model.patch_size=4

MAETEXT
"""

from ml_collections import ConfigDict

from transformer.config import section, variant_of


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model",
        "vit",
        image_size=8,
        patch_size=2,
        num_layers=4,
        num_heads=4,
        width=64,
        pooling="mean",
        init_scale=0.1,
        decoder_layers=2,
        decoder_width=32,
        decoder_heads=4,
    )
    config.task = section(
        "task",
        "masked_images",
        image_size=config.model.get_oneway_ref("image_size"),
        shift=1,
        batch_size=64,
        validation_batch_size=120,
        masking_rate=0.5,
        normalize_patches=False,
    )
    config.optimizer = section("optimizer", learning_rate=3e-3, warmup="10%", weight_decay=0.05)
    config.train = section("train", duration="200 epochs", evaluate_every="10%", save_every="50%")
    config.mesh = section("mesh")
    config.init, config.lora = section("init"), section("lora")
    config.update(variant_of(variant, VARIANTS))
    return config


VARIANTS = {}
