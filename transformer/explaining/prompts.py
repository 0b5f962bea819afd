"""A prompt as the inputs of a run's model.

Each kind of task has one reader, found by the protocol of its models.
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from transformer.data.labels.class_names import distinct_names
from transformer.data.reading.text import require_characters
from transformer.data.tokenizers.protocol import SentenceTokenizer, TextTokenizer
from transformer.decoding.shapes import rounded_up
from transformer.decoding.translate import Beam, translate
from transformer.errors import ConfigError, DataError
from transformer.explaining.board_prompts import read_board
from transformer.explaining.encoder_prompts import (
    read_class,
    read_masked,
    read_question,
    read_tags,
    read_vector,
)
from transformer.explaining.opening import makes_vectors
from transformer.explaining.readings import (
    Grid,
    Reading,
    Token,
    Wanted,
    names_by,
    require_no_target,
)
from transformer.explaining.recording_prompts import read_recording
from transformer.runs.opening import Run
from transformer.tasks.image_classification import ImageClassification
from transformer.tasks.language_modeling import LanguageModeling
from transformer.tasks.parts.abilities import Rewrites, Tokenized
from transformer.tasks.parts.labels import load_labels
from transformer.tasks.parts.models import (
    ImageClassifier,
    SentencePretrainer,
    SequenceToSequence,
    TextClassifier,
    TextDecoder,
    TextTagger,
    TokenFiller,
)
from transformer.tasks.parts.playing import BoardPlayer
from transformer.tasks.parts.speech import SpeechReader, SpeechWriter
from transformer.tasks.question_answering import QuestionAnswering

# Longer prompts are refused before they are tokenized, in characters.
LONGEST_PROMPT = 1 << 20


def reads_files(run: Run) -> bool:
    """Whether the prompt of a run is the path of a file: of an image or of a recording."""
    return run.task.model_kind in (ImageClassifier, SpeechReader)


def require_recordings(run: Run) -> None:
    """Refuses a run that does not write recordings down.

    Raises:
        ConfigError: names the run.
    """
    if run.task.model_kind is not SpeechReader:
        raise ConfigError(
            f"recordings are for runs that write speech down, and {run.workdir} was trained for "
            f"{run.config.task.name}: for texts give --prompt, for images --image."
        )


def require_images(run: Run) -> None:
    """Refuses a run that does not classify images.

    Raises:
        ConfigError: names the run.
    """
    if run.task.model_kind is not ImageClassifier:
        raise ConfigError(
            f"--image is for runs that classify images, and {run.workdir} was trained for "
            f"{run.config.task.name}: for texts give --prompt."
        )


def read(
    run: Run,
    prompt: str,
    target: str | None = None,
    *,
    most: int | None = None,
    append: Sequence[int] = (),
) -> Reading:
    """The inputs of a run's model for a prompt.

    Args:
        run: an open run.
        prompt: a text, or the path of an image or of a recording.
        target: the target of an encoder-decoder (None lets the model write one); the second text of
            a pair; the context of a question.
        most: the most tokens of a stack; None means as many as the model reads.
        append: token ids behind the prompt of a decoder, or the target of an encoder-decoder.

    Raises:
        ConfigError: if runs of this task cannot be explained.
        DataError: if the prompt cannot be read.
    """
    for name, text in (("prompt", prompt), ("target", target or "")):
        require_characters(text, f"the {name}")
        if len(text) > LONGEST_PROMPT:
            raise DataError(
                f"the {name} has {len(text):,} characters: at most {LONGEST_PROMPT:,} are read."
            )
    kind = run.task.model_kind
    reader = READERS.get(kind)
    if isinstance(run.task, QuestionAnswering):
        reader = read_question
    elif makes_vectors(run.config, run.workdir):
        reader = read_vector
    if reader is None:
        raise ConfigError(
            f"{run.workdir} was trained for {run.config.task.name}, which cannot be explained: its "
            f"models have no outputs that a page can show. Give a run that predicts tokens, "
            f"classes, tags or answers."
        )
    wanted = Wanted(prompt, target, most, tuple(append))
    if append:
        _require_tokens(run, append)
    return reader(run, wanted)


def _require_tokens(run: Run, append: Sequence[int]) -> None:
    writes = run.task.model_kind in (TextDecoder, SequenceToSequence)
    if not (writes or isinstance(run.model, SpeechWriter)):
        raise ConfigError(
            f"{run.workdir} was trained for {run.config.task.name}, which does not write: tokens "
            f"can be appended only for models that do."
        )
    for index in append:
        if not 0 <= index < run.model.vocab_size:
            raise ConfigError(
                f"there is no token {index}: the model has {run.model.vocab_size:,}, from 0."
            )


def read_text(run: Run, wanted: Wanted) -> Reading:
    """A prompt of a language model."""
    prompt, target, most = wanted[:3]
    require_no_target(run, target)
    task = cast("LanguageModeling", run.task)
    tokenizer: TextTokenizer = task.load_tokenizer(run.workdir)
    ids = np.array([*tokenizer.encode_prompt(prompt), *wanted.append], np.int32)
    if wanted.append:
        prompt += tokenizer.decode(wanted.append)
    if not len(ids):
        if task.begin is None or not 0 <= task.begin < run.model.vocab_size:
            raise DataError(
                "the prompt is empty, and the model has no token that begins a text: give at least "
                "one character."
            )
        ids = np.array([task.begin], np.int32)
    room = min(run.model.context, most or run.model.context)
    notes = ()
    if len(ids) > room:
        notes = (f"The prompt has {len(ids):,} tokens and was cut to its last {room:,}.",)
        ids = ids[-room:]
    text_of = _text_of_decoder(tokenizer)
    tokens = tuple(
        Token(text_of(int(i)), int(i), "special" if tokenizer.stands_apart(int(i)) else "text")
        for i in ids
    )
    width = rounded_up(len(ids), run.model.context)
    return Reading(
        prompt=prompt,
        family="decoder",
        method="__call__",
        inputs=(_filled(ids, width),),
        named={"valid": (np.arange(width) < len(ids))[None]},
        stacks={"decoder": tokens},
        output="next_token",
        text_of=text_of,
        notes=notes,
    )


def _text_of_decoder(tokenizer: TextTokenizer) -> Callable[[int], str]:
    """The text that a token adds to those before it, or its name if that is no whole text."""

    def text_of(index: int) -> str:
        once = tokenizer.decode([index])
        # Many tokenizers drop the space of a text's first token.
        text = tokenizer.decode([index, index])[len(once) :]
        if not text or "\ufffd" in text:
            text = tokenizer.tokens([index])[0]
        return text or f"<{index}>"

    return text_of


def read_pair(run: Run, wanted: Wanted) -> Reading:
    """A source and a target of an encoder-decoder."""
    prompt, target, most = wanted[:3]
    task = cast("Tokenized", run.task)
    tokenizer: SentenceTokenizer = task.load_tokenizer(run.workdir)
    notes: list[str] = []
    if isinstance(task, Rewrites):
        (source,), num_cut = task.encode_sources(tokenizer, [prompt], 0)
        if num_cut:
            notes.append(f"The prompt was cut to its first {len(source):,} tokens.")
    else:
        source = tokenizer.encode(prompt)
    if not len(source):
        raise DataError("the prompt is empty: give a text to read.")
    if most and len(source) >= most:
        notes.append(
            f"The prompt has {len(source):,} tokens and was cut to its first {most - 1:,}."
        )
        source = source[: most - 1]
    if target is None:
        beam = task.beam() if isinstance(task, Rewrites) else Beam(size=1)
        found = translate(run.model, run.params, tokenizer, [source], beam)[0]
        if not found:
            raise DataError("the model writes nothing for this prompt: give a target.")
        written = np.asarray(found[0].ids, np.int32)
        target = found[0].text
        notes.append("The target was written by the model.")
    else:
        (written,) = tokenizer.encode_targets([target])
    if wanted.append:
        written = np.array([*written, *wanted.append], np.int32)
        target = tokenizer.decode(written)
    if most and len(written) >= most:
        notes.append(f"The target was cut to its first {most - 1:,} tokens.")
        written = written[: most - 1]
    begin = run.model.begin_token()
    sides = (
        np.array([*source, tokenizer.end], np.int32),
        np.array([tokenizer.end if begin is None else begin, *written], np.int32),
    )
    specials = {tokenizer.end, begin}
    text_of = names_by(tokenizer)
    stacks = {
        name: tuple(
            Token(text_of(int(i)), int(i), "special" if int(i) in specials else "text") for i in ids
        )
        for name, ids in zip(("encoder", "decoder"), sides, strict=True)
    }
    widths = [rounded_up(len(ids)) for ids in sides]
    segments = [
        (np.arange(width) < len(ids)).astype(np.int32)[None]
        for ids, width in zip(sides, widths, strict=True)
    ]
    return Reading(
        prompt=prompt,
        target=target,
        written=wanted.target is None,
        family="encoder-decoder",
        method="__call__",
        inputs=tuple(_filled(ids, width) for ids, width in zip(sides, widths, strict=True)),
        named=dict(zip(("source_segments", "target_segments"), segments, strict=True)),
        stacks=stacks,
        output="next_token",
        text_of=text_of,
        notes=tuple(notes),
    )


def read_image(run: Run, wanted: Wanted) -> Reading:
    """An image that is classified; the prompt is its path."""
    prompt, target = wanted[:2]
    require_no_target(run, target)
    task = cast("ImageClassification", run.task)
    model = run.model
    if not prompt:
        raise DataError("which image? Give the path of one.")
    ((_, images),) = task.images.to_answer([prompt], model.channels)
    front = [Token("[class]", -1, "class")] if model.pooling == "class" else []
    if model.distillation != "none":
        front.append(Token("[distillation]", -1, "special"))
    front += [Token(f"[register {i + 1}]", -1, "register") for i in range(model.num_registers)]
    grid = model.grid
    patches = [
        Token(f"{row + 1},{column + 1}", -1, "patch")
        for row in range(grid)
        for column in range(grid)
    ]
    return Reading(
        prompt=prompt,
        family="image",
        method="classify",
        inputs=(np.asarray(task.images.preparation.normalized(images)),),
        stacks={"encoder": (*front, *patches)},
        output="classes",
        names=tuple(distinct_names(load_labels(run.workdir))),
        scores="sigmoid" if task.multi_label else "softmax",
        picture=images[0],
        grid=Grid(grid, grid, model.num_front, "image"),
        padded={"encoder": len(front) + len(patches)},
    )


def _filled(ids: np.ndarray, width: int) -> np.ndarray:
    """A row of token ids, filled up with zeros."""
    row = np.zeros((1, width), np.int32)
    row[0, : len(ids)] = ids
    return row


READERS: dict[type, Callable[[Run, Wanted], Reading]] = {
    TextDecoder: read_text,
    SequenceToSequence: read_pair,
    TextClassifier: read_class,
    TextTagger: read_tags,
    TokenFiller: read_masked,
    SentencePretrainer: read_masked,
    ImageClassifier: read_image,
    SpeechReader: read_recording,
    BoardPlayer: read_board,
}
