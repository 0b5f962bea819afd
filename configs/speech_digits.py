"""Strings of digits that synthetic voices read, to text: speech that needs no file.

    pip install -e '.[speech,tensorboard]'
    python scripts/train.py --config=configs/speech_digits.py --workdir=runs/digits
    python scripts/transcribe.py --workdir=runs/digits recording.wav

4,000 strings of one to six digits (73 minutes, 8 kHz) by 55 voices of eSpeak NG in five accents, at
different pitches and speeds, to train on; 500 strings of other digits by 12 other voices to
validate on. 4 encoder layers and 1 decoder layer of width 128, CTC beside attention, 1,000 steps.

Measured on one core of an Intel Xeon beside other work, seeds 0, 1, 2: WER 3.53, 3.97 and 3.80
percent; 90.4, 88.6 and 89.4 percent of the strings right; 8:42, 6:40 and 7:24 minutes of CPU time,
and half a minute more for the voices the first time. On a third set (`benchmarks/recognition.py`)
WER 7.68, 7.84 and 7.64 percent.
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model",
        "speech",
        num_encoder_layers=4,
        num_decoder_layers=1,
        num_heads=4,
        width=128,
        feed_forward_width=512,
        dropout_rate=0.1,
    )
    config.task = section(
        "task",
        "transcription",
        features={
            "sampling_rate": 8000,
            "num_mels": 40,
            "window": 256,
            "hop": 64,
            "scaling": "speech",
        },
        augmentation={
            "speed": 0.1,
            "pauses": 0.3,
            "frequency_masks": 2,
            "time_masks": 1,
            "time_width": 0.05,
        },
        max_seconds=5.0,
        max_length=64,
        batch_seconds=32.0,
        num_shapes=2,
        ctc_weight=0.5,
    )
    config.optimizer = section(
        "optimizer", learning_rate=2e-3, warmup="10%", weight_decay=0.01, beta2=0.98
    )
    config.train = section(
        "train",
        duration="1000 steps",
        evaluate_every="50%",
        save_every="50%",
        ema_decay=0.99,
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {}
