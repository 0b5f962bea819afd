"""Key-to-Door: a Decision Transformer acts by the return that it is asked for.

pip install -e '.[tensorboard]'
python scripts/train.py --config=configs/game_key_to_door.py --workdir=runs/key_to_door
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default; there are no variants."""
    config = ConfigDict()
    config.model = section(
        "model",
        "decision_transformer",
        num_layers=2,
        num_heads=4,
        width=64,
        init_scale=0.1,
        dropout_rate=0.1,
    )
    config.task = section("task", "key_to_door", validation_batch_size=500)
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="5%", weight_decay=0.1)
    config.train = section(
        "train",
        duration="2000 steps",
        evaluate_every="10%",
        save_every="25%",
        steps_per_dispatch=10,
    )
    return complete(config, variant)
