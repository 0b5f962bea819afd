r"""AN4: spelled words, digits and commands (Acero and Stern 1990), from 13 mel cepstra a frame.

    pip install -e '.[speech,tensorboard]'
    python scripts/train.py --config=configs/speech_an4.py --workdir=runs/an4 \
        --config.task.train=an4.npz

The file has `train_x`, `train_n` and `train_t` (frames of all utterances one after another, how
many each has, and what is said), and the same for `test`, on which it validates. 948 utterances to
train on (42 minutes), 130 of other speakers with 773 words to test. The score after the last step
is that of the test; nothing is chosen by it. CTC alone, 1.94 million parameters, heads of 32.

Measured with seed 0 on one core of an Intel Xeon beside other work: WER 15.9 percent (773 words),
45.4 percent of the utterances right, 29 minutes of CPU time. Published, from waveforms: 8.4, 9.2
and 9.57.
On a GPU, which nobody tried, go on for longer: --config.train.duration="12000 steps"
--config.task.batch_seconds=64.0
"""

from ml_collections import ConfigDict

from transformer.config import complete, section


def get_config(variant: str = "") -> ConfigDict:
    """The default, or a variant."""
    config = ConfigDict()
    config.model = section(
        "model",
        "speech_encoder",
        num_layers=4,
        num_heads=6,
        width=192,
        feed_forward_width=576,
        stride="8",
        kernel_size=5,
        dropout_rate=0.2,
    )
    config.task = section(
        "task",
        "transcription",
        # 87 of the 99 words are one token.
        tokenizer={"kind": "bpe", "size": 360},
        augmentation={
            "speed": 0.15,
            "cepstral_warp": 0.12,
            "frequency_masks": 1,
            "frequency_width": 0.25,
            "time_masks": 4,
            "time_width": 0.06,
        },
        max_seconds=8.0,
        max_length=64,
        batch_seconds=32.0,
        num_shapes=2,
        ctc_weight=1.0,
        decoding="ctc",
    )
    config.optimizer = section(
        "optimizer", learning_rate=2e-3, warmup="10%", weight_decay=0.05, beta2=0.98
    )
    config.train = section(
        "train",
        duration="2400 steps",
        evaluate_every="25%",
        save_every="25%",
        ema_decay=0.995,
    )
    return complete(config, variant, VARIANTS)


VARIANTS = {}
