"""Recordings as prompts of models that write speech down."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.composition import with_fields
from transformer.data.audio.prompts import require_marks
from transformer.data.audio.reading import OpenRecording
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding import prompted
from transformer.decoding.prompted import Prompts
from transformer.decoding.recognize import recognize
from transformer.decoding.shapes import rounded_up
from transformer.errors import DataError
from transformer.explaining.pooling import Pools, pools_of
from transformer.explaining.readings import (
    Reading,
    Sound,
    Token,
    Wanted,
    names_by,
    require_no_target,
)
from transformer.nn.taps import tap
from transformer.runs.opening import Run
from transformer.tasks.parts.listening import require_samples
from transformer.tasks.parts.speech import SpeechAligner, SpeechReader, SpeechWriter
from transformer.tasks.transcription import Transcription

# What stands for no token in the outputs of CTC.
NONE = "none"


class _Heard(NamedTuple):
    """The features of a recording.

    Attributes:
        frames: `[1, T, M]`, with the silence behind it that the model hears.
        num_frames: how many are of the recording.
        seconds: of the recording, as far as it is read.
        notes: what was cut.
    """

    frames: Float[Array, "1 T M"]
    num_frames: int
    seconds: float
    notes: tuple[str, ...]


def read_recording(run: Run, wanted: Wanted) -> Reading:
    """A recording, whose path is the prompt, and its transcript."""
    task = cast("Transcription", run.task)
    if not wanted.prompt:
        raise DataError("which recording? Give the path of one.")
    if not isinstance(run.model, SpeechWriter):
        require_no_target(run, wanted.target)
    heard = _hear(run, task, Path(wanted.prompt))
    task = _with_language(run, task, heard)
    ids, text = _transcript(run, task, heard, wanted)
    encoder = _encoder(task, run.model, heard, wanted.most)
    tokenizer = task.load_tokenizer(run.workdir)
    reading = Reading(
        prompt=wanted.prompt,
        target=text,
        written=wanted.target is None,
        family="recording",
        method=_align,
        inputs=(np.asarray(heard.frames), np.ones(heard.frames.shape[:2], np.int32)),
        stacks={"encoder": encoder.tokens},
        output="token_classes",
        padded={"encoder": encoder.count},
        text_of=names_by(tokenizer),
        pools=encoder.pools,
        sound=dataclasses.replace(encoder.sound, ids=tuple(ids)),
        notes=(*heard.notes, *encoder.notes),
    )
    if isinstance(run.model, SpeechWriter):
        return _with_decoder(run, task, reading, ids, wanted)
    names = [reading.text_of(index) for index in range(run.model.vocab_size)]
    return dataclasses.replace(reading, names=(*names, NONE))


class _Encoder(NamedTuple):
    """The tokens of the encoder: `count` vectors, perhaps pooled."""

    tokens: tuple[Token, ...]
    count: int
    pools: Pools | None
    sound: Sound
    notes: tuple[str, ...]


def _encoder(task: Transcription, model: SpeechReader, heard: _Heard, most: int | None) -> _Encoder:
    """The tokens of the encoder, named by their times."""
    second = task.recordings.features.seconds_per_frame * model.source_stride
    num_frames = heard.frames.shape[1]
    count, spoken = (-(-n // model.source_stride) for n in (num_frames, heard.num_frames))
    pools, size = pools_of(count, spoken, most)
    starts = np.arange(count) if pools is None else pools.starts()
    edges = [*(starts * second).tolist(), count * second]
    tokens = [Token(f"{edge:.2f} s", -1, "frame") for edge in edges[:-1]]
    notes = []
    if size > 1:
        notes.append(
            f"Each token of the encoder stands for up to {size} vectors ({size * second:.2f} "
            f"seconds). Its vectors are their means; its weights are means over the vectors that "
            f"read, and sums over those that are read."
        )
    is_silent = pools is not None and spoken < count
    if is_silent:
        tokens[-1] = Token("silence", -1, "silence")
        length = edges[-1] - edges[-2]
        notes.append(f"The silence behind the recording, {length:.2f} seconds, is one token.")
    shown = heard.num_frames if is_silent else num_frames
    sound = Sound(np.asarray(heard.frames[0, :shown]), tuple(edges), second, is_silent)
    return _Encoder(tuple(tokens), count, pools, sound, tuple(notes))


def _with_decoder(
    run: Run, task: Transcription, reading: Reading, ids: Sequence[int], wanted: Wanted
) -> Reading:
    """With the transcript as what a decoder has written so far."""
    begin, tokenizer = run.model.begin_token(), task.load_tokenizer(run.workdir)
    asked = task.recordings.prompt.tokens(tokenizer).tolist()
    front = [tokenizer.end if begin is None else begin, *asked]
    room, notes = len(ids), reading.notes
    if wanted.most and len(front) + len(ids) > wanted.most:
        room = wanted.most - len(front)
        notes = (*notes, f"The target was cut to its first {room:,} tokens.")
    target = np.array([*front, *ids[:room]], np.int32)
    kinds = ["special"] * len(front) + ["text"] * room
    width = rounded_up(len(target))
    row = np.zeros((1, width), np.int32)
    row[0, : len(target)] = target
    frames, segments = reading.inputs
    return dataclasses.replace(
        reading,
        family="encoder-decoder",
        method=_write,
        inputs=(frames, row),
        named={
            "source_segments": segments,
            "target_segments": (np.arange(width) < len(target)).astype(np.int32)[None],
        },
        stacks={
            **reading.stacks,
            "decoder": tuple(
                Token(reading.text_of(int(index)), int(index), kind)
                for index, kind in zip(target, kinds, strict=True)
            ),
        },
        output="next_token",
        padded={**reading.padded, "decoder": width},
        notes=notes,
    )


def _hear(run: Run, task: Transcription, path: Path) -> _Heard:
    """The features of the beginning of a recording, as much as the model hears at once."""
    require_samples(run.model, task.recordings.features)
    rate = task.recordings.features.sampling_rate
    most = task.recordings.max_seconds
    if task.recordings.features.pad_seconds is not None:
        most = min(most, task.recordings.features.pad_seconds)
    with OpenRecording(path, rate) as recording:
        samples = recording.window(0, round(most * rate) + 1)
    notes = ()
    if len(samples) > round(most * rate):
        samples = samples[: round(most * rate)]
        notes = (f"The recording is longer than {most:g} seconds: its beginning is shown.",)
    frames, _ = task.recordings.features(jnp.asarray(samples)[None], jnp.array([len(samples)]))
    num_frames = min(frames.shape[1], -(-len(samples) // task.recordings.features.hop))
    return _Heard(frames, num_frames, len(samples) / rate, notes)


def _transcript(
    run: Run, task: Transcription, heard: _Heard, wanted: Wanted
) -> tuple[list[int], str]:
    """The transcript, as tokens and as text: the one that was asked for, or the model's own."""
    tokenizer: SentenceTokenizer = task.load_tokenizer(run.workdir)
    if wanted.target is not None:
        (ids,) = tokenizer.encode_targets([wanted.target])
    else:
        how = task.recognition(tokenizer)
        length = jnp.array([heard.frames.shape[1]])
        ids = recognize(run.model, run.params, heard.frames, length, how)[0].ids
    ids = [*np.asarray(ids).tolist(), *wanted.append]
    return ids, tokenizer.decode(ids)


def _with_language(run: Run, task: Transcription, heard: _Heard) -> Transcription:
    """The task with the most probable language, where it must be known and is not."""
    if not task.recordings.prompt.multilingual or task.recordings.prompt.language:
        return task
    marks = require_marks(task.load_tokenizer(run.workdir))
    memory = run.model.apply({"params": run.params}, heard.frames, method="encode")
    prompts = Prompts(np.array([[marks.start]], np.int32), np.ones(1, np.int32))
    logits = np.asarray(prompted.following(run.model, run.params, memory, prompts))[0]
    language = max(marks.languages, key=lambda code: logits[marks.languages[code]])
    return with_fields(task, prompt=dataclasses.replace(task.recordings.prompt, language=language))


def _write(
    model: SpeechWriter, frames: Float[Array, "B T M"], target: Int[Array, "B U"], **layout: Array
) -> Float[Array, "B U V"]:
    """The scores of every next token of a transcript; records what CTC hears, if there is one."""
    memory = model.encode(frames, layout["source_segments"])
    if isinstance(model, SpeechAligner):
        tap(model, "encoder_alignment", jax.nn.softmax(model.aligned(memory)))
    return model.logits(model.written(memory, target, **layout))


def _align(
    model: SpeechAligner, frames: Float[Array, "B T M"], segments: Int[Array, "B T"]
) -> Float[Array, "B R C"]:
    """The log probability of each vector's token, the last being none."""
    log_probs = jax.nn.log_softmax(model.aligned(model.encode(frames, segments)))
    tap(model, "encoder_alignment", jnp.exp(log_probs))
    return log_probs
