"""A tiny run of every task, from files of `generated.py`: for campaigns that train."""

from pathlib import Path
from typing import NamedTuple

from tests.campaigns.generated import RATE

ROOT = Path(__file__).parents[2]
STEPS = 8


class Job(NamedTuple):
    """A run that takes a second or two once its programs are compiled.

    Attributes:
        name: of the job; the task, and what is special about it.
        config: file in `configs/`, with its variant.
        settings: of config fields, `{data}` for the folder of the generated files, `{base}` for
            that of the finished run.
        base: name of the job whose finished run it needs, or nothing. Unless its folder is part of
            the config or the settings, the job begins from its parameters.
    """

    name: str
    config: str
    settings: dict[str, object]
    base: str = ""

    def flags(self, data: Path, base: Path | None = None) -> list[str]:
        """Of `train.py`, but for the workdir.

        Args:
            data: folder of the generated files.
            base: folder of the run it needs, for those that do.
        """
        settings = TRAIN | self.settings
        if base is not None and "{base}" not in f"{self.config} {settings}":
            settings["init.workdir"] = base
        return [
            f"--config={ROOT / 'configs' / self.config.format(base=base)}",
            *(f"--config.{k}={str(v).format(data=data, base=base)}" for k, v in settings.items()),
        ]


# Checkpoints of the same moment as evaluations, before and after them.
TRAIN = {
    "train.duration": f"{STEPS} steps",
    "train.log_every": "1 steps",
    "train.evaluate_every": "4 steps",
    "train.save_every": "2 steps",
    "train.validation_batches": 2,
    "optimizer.warmup": "3 steps",
}
DECODER = {"num_layers": 1, "num_heads": 2, "width": 16, "context": 16, "dropout_rate": 0.1}
ENCODER = {"num_layers": 1, "num_heads": 2, "width": 16, "context": 40, "dropout_rate": 0.1}
BOTH = {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "width": 16}
BOTH |= {"feed_forward_width": 16, "dropout_rate": 0.1}
PICTURES = {"num_layers": 1, "num_heads": 2, "width": 16, "patch_size": 4, "image_size": 8}
PICTURES |= {"decoder_layers": 1, "decoder_width": 8, "decoder_heads": 2}

# Two in a row on four squares.
BOARD = {"num_layers": 1, "num_heads": 2, "width": 16, "dropout_rate": 0.1}
GAME = {"game.rows": 2, "game.columns": 2, "game.in_row": 2, "batch_size": 4}


def _settings(model: dict, task: dict, **others: object) -> dict[str, object]:
    found = {f"model.{key}": value for key, value in model.items()}
    found |= {f"task.{key}": value for key, value in task.items()}
    return found | {key.replace("__", "."): value for key, value in others.items()}


TEXT = {"path": "{data}/text.txt", "batch_size": 4, "validation_batch_size": 4}
PAIRS = {
    "train": "{data}/train.src,{data}/train.tgt",
    "validation": "{data}/val.src,{data}/val.tgt",
    # Every word is a token: batches have two shapes, of 8 and of 12 tokens.
    "tokenizer.size": 290,
    "max_length": 12,
    "batch_tokens": 128,
    "beam_size": 2,
    "extra_length": 4,
}
LABELLED = {"train": "{data}/texts.jsonl", "max_length": 24, "batch_size": 8, "tokenizer.size": 80}
SOUNDS = {
    "train": "{data}/recordings.jsonl",
    "features.sampling_rate": RATE,
    "features.num_mels": 8,
    "features.window": 64,
    "features.hop": 32,
}
IMAGES = {"path": "{data}/images", "batch_size": 8, "validation_batch_size": 8}

JOBS = (
    Job(
        "language modeling, average, microbatches, several steps at once",
        "gpt_char.py",
        _settings(
            DECODER,
            TEXT | {"sample_length": 20},
            train__ema_decay=0.9,
            train__microbatches=2,
            train__steps_per_dispatch=4,
        ),
    ),
    Job(
        "language modeling, BPE, Llama in one scan",
        "llama.py",
        _settings(
            DECODER | {"num_layers": 2, "num_kv_heads": 1, "compute.scan_layers": True},
            TEXT | {"tokenizer.kind": "bpe", "tokenizer.size": 280, "sample_length": 20},
            train__steps_per_dispatch=3,
        ),
    ),
    Job(
        "language modeling, adapters",
        "finetune.py:{base}",
        _settings({}, TEXT | {"sample_length": 20}, lora__rank=2, train__ema_decay=0.5),
        base="language modeling, average, microbatches, several steps at once",
    ),
    Job(
        "translation, rows by length",
        "translation.py",
        _settings(BOTH, PAIRS, train__steps_per_dispatch=3),
    ),
    Job(
        "translation, packed rows, average",
        "translation.py",
        _settings(BOTH, PAIRS | {"packing": True}, train__ema_decay=0.9),
    ),
    Job(
        "text to text",
        "t5.py",
        _settings(
            BOTH | {"head_dim": 8},
            {
                "train": "{data}/turn.jsonl",
                "tokenizer.kind": "character",
                "max_length": 32,
                "max_target_length": 16,
                "batch_tokens": 128,
                "rows_multiple": 4,
                "validation_fraction": 0.2,
                "beam_size": 2,
            },
        ),
    ),
    Job(
        "denoising",
        "denoising.py",
        _settings(BOTH, TEXT | {"tokenizer.kind": "character", "length": 16}),
    ),
    Job(
        "masked words, next sentences",
        "bert_pretrain.py",
        _settings(
            ENCODER,
            {
                "path": "{data}/sentences.txt",
                "tokenizer.size": 80,
                "max_length": 24,
                "batch_size": 8,
            },
            train__steps_per_dispatch=2,
        ),
    ),
    Job(
        "masked whole words",
        "bert_pretrain.py",
        _settings(
            ENCODER,
            {
                "path": "{data}/sentences.txt",
                "tokenizer.size": 80,
                "max_length": 16,
                "batch_size": 8,
                "next_sentence": False,
                "whole_words": True,
            },
            train__microbatches=2,
        ),
    ),
    Job(
        "masked residues",
        "protein_mlm.py",
        _settings(
            ENCODER,
            {
                "path": "{data}/a.fasta",
                "validation_fraction": 0.2,
                "max_length": 16,
                "batch_size": 8,
            },
        ),
    ),
    Job("classes of texts", "bert_classify.py", _settings(ENCODER, LABELLED, train__ema_decay=0.9)),
    Job(
        "classes of pairs of texts, from a pretrained run, adapters",
        "bert_classify.py",
        _settings(
            ENCODER,
            LABELLED | {"train": "{data}/both.jsonl", "second": "other"},
            lora__rank=2,
        ),
        base="masked words, next sentences",
    ),
    Job(
        "tags",
        "bert_tag.py",
        _settings(
            ENCODER,
            {"train": "{data}/tags.conll", "max_length": 12, "tokenizer.size": 60, "batch_size": 4},
        ),
    ),
    Job(
        "questions",
        "bert_squad.py",
        _settings(
            ENCODER,
            {
                "train": "{data}/questions.json",
                "max_length": 28,
                "no_answer": True,
                "max_question_length": 8,
                "stride": 8,
                "tokenizer.size": 60,
                "batch_size": 4,
            },
        ),
    ),
    Job(
        "classes of images, augmented, average",
        "vit_digits.py",
        _settings(
            PICTURES,
            IMAGES | {"augmentation.flip": True, "augmentation.mixup": 0.2},
            train__ema_decay=0.9,
        ),
    ),
    Job("masked images", "vit_mae.py", _settings(PICTURES, IMAGES)),
    Job(
        "transcription, augmented, average",
        "speech_digits.py",
        _settings(
            BOTH,
            SOUNDS
            | {
                "max_seconds": 2.0,
                "batch_seconds": 8.0,
                "rows_multiple": 4,
                "num_shapes": 1,
                "beam_size": 2,
            },
            train__steps_per_dispatch=2,
        ),
    ),
    Job(
        "sound codec",
        "audio_tokens.py",
        _settings(
            {"num_layers": 1, "num_heads": 2, "width": 16, "levels": "(3,3)"},
            SOUNDS | {"piece_seconds": 0.2, "batch_size": 4},
        ),
    ),
    Job(
        "speaking",
        "voice_digits.py",
        _settings(
            DECODER | {"context": 64},
            {
                "train": "{data}/recordings.jsonl",
                "codec": "{base}",
                "batch_tokens": 256,
                "rows_multiple": 4,
                "num_shapes": 1,
            },
        ),
        base="sound codec",
    ),
    Job(
        "completion",
        "completion.py",
        _settings(
            DECODER | {"context": 32, "num_kv_heads": 1},
            {
                "train": "{data}/turn.jsonl",
                "suffix": ":",
                "tokenizer.kind": "character",
                "max_length": 32,
                "max_target_length": 12,
                "validation_fraction": 0.2,
            },
        ),
    ),
    Job(
        "moves of chess",
        "game_chess.py",
        _settings(
            DECODER,
            {"train": "{data}/games.pgn", "max_moves": 4, "batch_size": 4, "scored_games": 2},
        ),
    ),
    Job(
        "moves of a solved game",
        "game_tictactoe.py",
        _settings(BOARD, GAME, train__steps_per_dispatch=2, train__ema_decay=0.5),
    ),
    Job(
        "self-play",
        "game_tictactoe.py:self_play",
        _settings(
            BOARD,
            GAME | {"simulations": 3, "random_moves": 1},
            train__steps_per_dispatch=2,
        ),
    ),
    Job(
        "moves of random games",
        "game_othello.py",
        # Games have 60 moves.
        _settings(
            DECODER | {"context": 60},
            {"batch_size": 2, "validation_batch_size": 2, "validation_games": 4},
            train__steps_per_dispatch=2,
        ),
    ),
    Job(
        "acting by a return",
        "game_key_to_door.py",
        _settings(
            BOARD,
            {
                "rooms.side": 2,
                "rooms.moves": 2,
                "rooms.distraction": 1,
                "episodes": 16,
                "validation_episodes": 4,
                "tries": 4,
                "batch_size": 4,
                "validation_batch_size": 4,
            },
            train__steps_per_dispatch=2,
        ),
    ),
)


def named(name: str) -> Job:
    """The job of this name."""
    (found,) = (job for job in JOBS if job.name == name)
    return found
