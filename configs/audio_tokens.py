r"""A codec of sound: spectrograms as tokens of a few bits, and spectrograms again.

pip install -e '.[speech,interop,tensorboard]'
python scripts/train.py --config=configs/audio_tokens.py --workdir=runs/codec
python scripts/train.py --config=configs/audio_tokens.py --workdir=runs/mine \
        --config.task.train=my.jsonl

2,000 strings of digits (41 minutes, 16 kHz) by four voices of eSpeak NG; 31.25 codes a second, of
1,000. Measured on one core of an Intel Xeon that was shared with much other work: 3.22 dB of mean
error in a band of 200 strings that it never heard (seed 0), 471 codes used, 8.2 bits each; 6:35
minutes of CPU time. How well these strings are understood afterwards: `voice_digits.py`.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section("model", "sound_codec")
    config.task = section("task", "audio_tokens")
    config.optimizer = section("optimizer", learning_rate=2e-3, warmup="5%", weight_decay=0.0)
    config.train = section(
        "train",
        duration="2000 steps",
        evaluate_every="500 steps",
        save_every="500 steps",
        steps_per_dispatch=10,
        ema_decay=0.99,
    )
    return complete(config, variant)
