"""A voice that says digits: a GPT reads words and writes the codes of their sound.

    pip install -e '.[speech,interop,tensorboard]'
    python scripts/train.py --config=configs/audio_tokens.py --workdir=runs/codec
    python scripts/train.py --config=configs/voice_digits.py --workdir=runs/voice
    python scripts/speak.py --workdir=runs/voice "three five nine" --output=out.wav

The codec is that of `runs/codec`, unless --config.task.codec names another run. Measured on an
Intel Xeon that was shared with much other work: 7:46 minutes of CPU time. Of 200 strings that it
never heard, a recogniser (`speech_digits.py`, trained on other voices) hears 81.0 percent right;
98.0 percent of the recordings (seed 0, `benchmarks/voice.py`).
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model", "gpt", num_layers=4, num_heads=4, width=128, context=128, dropout_rate=0.1
    )
    config.task = section(
        "task", "speaking", context=config.model.get_ref("context"), batch_tokens=1024, num_shapes=2
    )
    config.optimizer = section(
        "optimizer", algorithm="muon", learning_rate=5e-3, warmup="10%", weight_decay=0.05
    )
    config.train = section(
        "train",
        duration="2000 steps",
        evaluate_every="200 steps",
        save_every="200 steps",
        ema_decay=0.99,
    )
    return complete(config, variant)
