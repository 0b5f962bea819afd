r"""A ViT on CIFAR-10: 50,000 images of 32x32 pixels to train on, 10,000 to validate on.

    pip install -e '.[vision,tensorboard]'
    python scripts/train.py --config=configs/vit_cifar.py --workdir=runs/cifar \
        --config.task.path=cifar-10-batches-bin
    python scripts/train.py --config=configs/vit_cifar.py:short --workdir=runs/cifar_short \
        --config.task.path=cifar-10-batches-bin

`cifar-10-batches-bin` is the folder that the binary version of CIFAR-10 unpacks to; a folder with
a folder of images for each class and a `.npz` file (`x_train`, `y_train`, `x_test`, `y_test`) are
read, too.

7 layers of width 384 over 64 patches of 4x4 pixels, 6.3 million parameters, 200 epochs: the size
and the length at which small ViTs are published with about 91 percent. The device augments the
images, by RandAugment, CutMix and Mixup, so that it does not wait for the host. `short`: 4 layers
of width 128 and 20 epochs, for two CPU cores. Neither has been trained to a score.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model",
        "vit",
        image_size=32,
        patch_size=4,
        num_layers=7,
        num_heads=6,
        width=384,
        feed_forward_width=384,
        pooling="mean",
        init_scale=0.05,
        stochastic_depth_rate=0.1,
    )
    config.task = section(
        "task",
        "image_classification",
        path="cifar-10-batches-bin",
        preparation={
            "image_size": config.model.get_oneway_ref("image_size"),
            "mean": (0.4914, 0.4822, 0.4465),
            "std": (0.247, 0.2435, 0.2616),
        },
        augmentation={
            "flip": True,
            "shift": 4,
            "rand_augment_ops": 2,
            "mixup": 0.8,
            "cutmix": 1.0,
            "on_device": True,
        },
        channels=3,
        batch_size=512,
        label_smoothing=0.1,
    )
    config.optimizer = section(
        "optimizer", learning_rate=1e-3, warmup="5%", weight_decay=0.05, clip_norm=1.0
    )
    config.train = section(
        "train", duration="200 epochs", evaluate_every="2%", save_every="5%", ema_decay=0.999
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {
    "short": {
        "model": {
            "num_layers": 4,
            "num_heads": 4,
            "width": 128,
            "feed_forward_width": 256,
            "stochastic_depth_rate": 0.0,
        },
        "task": {
            "batch_size": 128,
            "augmentation": {"rand_augment_ops": 1, "mixup": 0.0, "cutmix": 0.0},
        },
        "train": {"duration": "20 epochs", "ema_decay": 0.0},
    },
}
