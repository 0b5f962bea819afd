"""What a model reads: a prompt as the inputs of its run's model, and its tokens by name.

Each kind of task has one reader, found by the protocol of its models.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from transformer.data.labels.class_names import distinct_names
from transformer.data.labels.conll import align, split_words
from transformer.data.labels.squad import Question
from transformer.data.labels.windows import make_windows
from transformer.data.reading.text import require_characters
from transformer.data.text.rows import lay_out_texts
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer, TextTokenizer
from transformer.decoding.embed import row_length
from transformer.decoding.translate import Beam, translate
from transformer.errors import ConfigError, DataError
from transformer.runs.opening import Run
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
from transformer.tasks.parts.protocol import Rewrites
from transformer.tasks.question_answering import QuestionAnswering

# Longer prompts are refused before they are tokenized, in characters.
LONGEST_PROMPT = 1 << 20


class Token(NamedTuple):
    """One token of a stack.

    Attributes:
        text: the token as it is shown.
        id: its number; -1 for a token that is not of a vocabulary.
        kind: `text`, `special`, `patch`, `class` or `register`.
    """

    text: str
    id: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Reading:
    """The inputs of one call of a model, with a batch of one.

    Texts are filled up to a few lengths, so that programs are compiled for few shapes; the tokens
    of `stacks` are without padding.

    Attributes:
        prompt: the text, or the path of the image.
        target: the second text: the target of an encoder-decoder, the context of a question.
        family: `decoder`, `encoder`, `encoder-decoder` or `image`.
        method: the method of the model to call.
        inputs: its positional arguments.
        named: its named arguments.
        stacks: the tokens of each stack, by the stack's name.
        output: what the outputs are: `next_token`, `classes`, `token_classes`, `masked_tokens` or
            `span`.
        names: the names of the outputs, if they have names.
        scores: for `classes`: `softmax`, `sigmoid` or `number`.
        positions: for `masked_tokens`: the places that are predicted.
        text_of: the text of a token id.
        picture: the prepared image.
        notes: sentences about what was cut.
    """

    prompt: str
    family: str
    method: str
    inputs: tuple[np.ndarray, ...]
    stacks: Mapping[str, tuple[Token, ...]]
    output: str
    target: str | None = None
    named: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()
    scores: str = "softmax"
    positions: tuple[int, ...] = ()
    text_of: Callable[[int], str] = str
    picture: UInt8[np.ndarray, "Y X C"] | None = None
    notes: tuple[str, ...] = ()


class _Wanted(NamedTuple):
    """The arguments of `read`."""

    prompt: str
    target: str | None
    most: int | None
    append: tuple[int, ...]


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
        prompt: a text, or the path of an image.
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
    reader = _QUESTIONS if isinstance(run.task, QuestionAnswering) else READERS.get(kind)
    if reader is None:
        raise ConfigError(
            f"{run.workdir} was trained for {run.config.task.name}, which cannot be explained: its "
            f"models have no outputs that a page can show. Give a run that predicts tokens, "
            f"classes, tags or answers."
        )
    wanted = _Wanted(prompt, target, most, tuple(append))
    if append:
        _require_tokens(run, append)
    return reader(run, wanted)


def _require_tokens(run: Run, append: Sequence[int]) -> None:
    if run.task.model_kind not in (TextDecoder, SequenceToSequence):
        raise ConfigError(
            f"{run.workdir} was trained for {run.config.task.name}, which does not write: tokens "
            f"can be appended only for models that do."
        )
    for index in append:
        if not 0 <= index < run.model.vocab_size:
            raise ConfigError(
                f"there is no token {index}: the model has {run.model.vocab_size:,}, from 0."
            )


def _read_text(run: Run, wanted: _Wanted) -> Reading:
    """A prompt of a language model."""
    prompt, target, most = wanted[:3]
    _require_no_target(run, target)
    task: Any = run.task
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
    width = row_length(len(ids), run.model.context)
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


def _read_pair(run: Run, wanted: _Wanted) -> Reading:
    """A source and a target of an encoder-decoder."""
    prompt, target, most = wanted[:3]
    task: Any = run.task
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
        notes.append(f"The prompt has {len(source):,} tokens and was cut to its first {most - 1:,}.")
        source = source[: most - 1]
    if target is None:
        beam = task.beam() if isinstance(task, Rewrites) else Beam(size=1)
        found = translate(run.model, run.params, tokenizer, [source], beam)[0]
        if not found:
            raise DataError("the model writes nothing for this prompt: give a target.")
        written = np.asarray(found[0].ids, np.int32)
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

    def text_of(index: int) -> str:
        return (tokenizer.tokens([index])[0] if index < tokenizer.vocab_size else "") or f"<{index}>"

    stacks = {
        name: tuple(
            Token(text_of(int(i)), int(i), "special" if int(i) in specials else "text") for i in ids
        )
        for name, ids in zip(("encoder", "decoder"), sides, strict=True)
    }
    widths = [row_length(len(ids), 1 << 24) for ids in sides]
    segments = [
        (np.arange(width) < len(ids)).astype(np.int32)[None]
        for ids, width in zip(sides, widths, strict=True)
    ]
    return Reading(
        prompt=prompt,
        target=target,
        family="encoder-decoder",
        method="__call__",
        inputs=tuple(_filled(ids, width) for ids, width in zip(sides, widths, strict=True)),
        named=dict(zip(("source_segments", "target_segments"), segments, strict=True)),
        stacks=stacks,
        output="next_token",
        text_of=text_of,
        notes=tuple(notes),
    )


def _read_class(run: Run, wanted: _Wanted) -> Reading:
    """A text, or a pair of texts, that is classified."""
    prompt, target, most = wanted[:3]
    task: Any = run.task
    tokenizer: EncoderTokenizer = task.load_tokenizer(run.workdir)
    first, second = prompt, target
    if task.second and second is None:
        first, tab, second = prompt.partition("\t")
        if not tab:
            raise DataError(
                f"{run.workdir} was trained on pairs: give the second text as target, or both with "
                f"a tab between."
            )
    elif not task.second:
        _require_no_target(run, target)
    for text in (first, second):
        if text is not None and not text.strip():
            raise DataError("the prompt is empty: give a text to classify.")
    room = min(task.max_length, most or task.max_length)
    rows = lay_out_texts(tokenizer, [first], None if second is None else [second], room)
    notes = (f"The text was cut to its first {room:,} tokens.",) if rows.cut[0] else ()
    names = tuple(distinct_names(load_labels(run.workdir)))
    scores = "sigmoid" if task.multi_label or task.sigmoid else "softmax"
    if task.regression and not task.sigmoid:
        scores = "number"
    return _encoder_reading(
        tokenizer,
        rows.arrays(),
        prompt=prompt,
        target=target,
        method="classify",
        output="classes",
        names=names,
        scores=scores,
        notes=notes,
    )


def _read_tags(run: Run, wanted: _Wanted) -> Reading:
    """A sentence whose words are tagged."""
    prompt, target, most = wanted[:3]
    _require_no_target(run, target)
    task: Any = run.task
    tokenizer: EncoderTokenizer = task.load_tokenizer(run.workdir)
    words = split_words(prompt)
    if not words:
        raise DataError("the prompt is empty: give a sentence to tag.")
    room = min(task.max_length, most or task.max_length)
    rows = align(tokenizer, [words], None, max_length=room)
    if not len(rows.tokens):
        raise DataError("the prompt has no token that the model knows: give other words.")
    notes = ()
    if len(rows.tokens) > 1:
        notes = (f"The sentence is longer than {room:,} tokens: its first part is shown.",)
    arrays = {
        "tokens": rows.tokens[:1],
        "token_types": np.zeros_like(rows.tokens[:1]),
        "lengths": rows.lengths[:1],
    }
    names = load_labels(run.workdir)
    return _encoder_reading(
        tokenizer,
        arrays,
        prompt=prompt,
        method="tag",
        output="token_classes",
        names=names,
        notes=notes,
    )


def _read_question(run: Run, wanted: _Wanted) -> Reading:
    """A question, and a context in which the answer is."""
    prompt, target = wanted[:2]
    task: Any = run.task
    tokenizer: EncoderTokenizer = task.load_tokenizer(run.workdir)
    question, context = prompt, target
    if context is None:
        question, _, context = prompt.partition("\t")
    if not question.strip() or not context.strip():
        raise DataError(
            "a question and a context are needed: give the context as target, or both with a tab "
            "between."
        )
    windows = make_windows(
        tokenizer,
        [Question("1", question, context, ())],
        max_length=task.max_length,
        stride=task.stride,
        max_question_length=task.max_question_length,
    )
    notes = ()
    if len(windows.tokens) > 1:
        notes = (f"The context was cut: one row has {task.max_length:,} tokens.",)
    arrays = {
        "tokens": windows.tokens[:1],
        "token_types": windows.token_types[:1].astype(np.int32),
        "lengths": windows.lengths[:1],
    }
    return _encoder_reading(
        tokenizer,
        arrays,
        prompt=prompt,
        target=target,
        method="tag",
        output="span",
        names=("start", "end"),
        notes=notes,
    )


def _read_masked(run: Run, wanted: _Wanted) -> Reading:
    """A text with masks; without one, every token is predicted where it stands."""
    prompt, target, most = wanted[:3]
    _require_no_target(run, target)
    task: Any = run.task
    tokenizer: EncoderTokenizer = task.load_tokenizer(run.workdir)
    if not prompt.strip():
        raise DataError(f"the prompt is empty: give a text, with {tokenizer.names.mask} in it.")
    room = min(task.max_length, most or task.max_length)
    rows = lay_out_texts(tokenizer, [prompt], None, room, special=True)
    notes = [f"The text was cut to its first {room:,} tokens."] if rows.cut[0] else []
    ids = rows.tokens[0, : rows.lengths[0]]
    places = np.flatnonzero(ids == tokenizer.mask)
    if not len(places):
        places = np.flatnonzero(~tokenizer.special[ids])
        notes.append(f"The prompt has no {tokenizer.names.mask}: every token is predicted.")
    if not len(places):
        raise DataError("the prompt has no token that the model knows: give another text.")
    reading = _encoder_reading(
        tokenizer,
        rows.arrays(),
        prompt=prompt,
        method="fill",
        output="masked_tokens",
        positions=tuple(int(place) for place in places),
        notes=tuple(notes),
    )
    positions = places.astype(np.int32)[None]
    return dataclasses.replace(reading, inputs=(*reading.inputs, positions))


def _encoder_reading(
    tokenizer: EncoderTokenizer, rows: Mapping[str, np.ndarray], **fields: Any
) -> Reading:
    """The reading of the only row of an encoder."""
    (length,) = rows["lengths"]
    width = row_length(int(length), rows["tokens"].shape[1])

    def text_of(index: int) -> str:
        return (tokenizer.tokens([index])[0] if index < tokenizer.vocab_size else "") or f"<{index}>"

    tokens = tuple(
        Token(text_of(int(i)), int(i), "special" if tokenizer.special[i] else "text")
        for i in rows["tokens"][0, :length]
    )
    inputs = (rows["tokens"][:, :width], rows["token_types"][:, :width], rows["lengths"])
    return Reading(
        family="encoder", inputs=inputs, stacks={"encoder": tokens}, text_of=text_of, **fields
    )


def _read_image(run: Run, wanted: _Wanted) -> Reading:
    """An image that is classified; the prompt is its path."""
    prompt, target = wanted[:2]
    _require_no_target(run, target)
    task: Any = run.task
    model = run.model
    if not prompt:
        raise DataError("which image? Give the path of one.")
    ((_, images),) = task.files([prompt], model.channels)
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
        inputs=(np.asarray(task.preparation.normalized(images)),),
        stacks={"encoder": (*front, *patches)},
        output="classes",
        names=tuple(distinct_names(load_labels(run.workdir))),
        scores="sigmoid" if task.multi_label else "softmax",
        picture=images[0],
    )


def _require_no_target(run: Run, target: str | None) -> None:
    if target is not None:
        raise ConfigError(
            f"{run.workdir} was trained for {run.config.task.name}, which reads one input: leave "
            f"the target out."
        )


def _filled(ids: Iterable[int], width: int) -> np.ndarray:
    """A row of token ids, filled up with zeros."""
    row = np.zeros((1, width), np.int32)
    ids = np.asarray(ids, np.int32)
    row[0, : len(ids)] = ids
    return row


_QUESTIONS = _read_question
READERS: dict[type, Callable[[Run, _Wanted], Reading]] = {
    TextDecoder: _read_text,
    SequenceToSequence: _read_pair,
    TextClassifier: _read_class,
    TextTagger: _read_tags,
    TokenFiller: _read_masked,
    SentencePretrainer: _read_masked,
    ImageClassifier: _read_image,
}
