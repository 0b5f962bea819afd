"""Prompts of text encoders: texts and pairs, sentences, questions, texts with masks."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from transformer.data.labels.class_names import distinct_names
from transformer.data.labels.conll import align
from transformer.data.labels.squad import Question
from transformer.data.labels.windows import make_windows
from transformer.data.text.embeddings import load_embedding
from transformer.data.text.rows import lay_out_texts
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.decoding.shapes import rounded_up
from transformer.errors import DataError
from transformer.explaining.readings import Reading, Token, Wanted, names_by, require_no_target
from transformer.runs.opening import Run
from transformer.tasks.masked_lm import MaskedLM
from transformer.tasks.parts.abilities import Tokenized
from transformer.tasks.parts.labels import load_labels
from transformer.tasks.question_answering import QuestionAnswering
from transformer.tasks.tagging import Tagging
from transformer.tasks.text_classification import TextClassification


def read_class(run: Run, wanted: Wanted) -> Reading:
    """A text, or a pair of texts, that is classified."""
    prompt, target, most = wanted[:3]
    task = cast("TextClassification", run.task)
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
        require_no_target(run, target)
    for text in (first, second):
        if text is not None and not text.strip():
            raise DataError("the prompt is empty: give a text to classify.")
    room = min(task.inputs.max_length, most or task.inputs.max_length)
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


def read_tags(run: Run, wanted: Wanted) -> Reading:
    """A sentence whose words are tagged."""
    prompt, target, most = wanted[:3]
    require_no_target(run, target)
    task = cast("Tagging", run.task)
    tokenizer: EncoderTokenizer = task.load_tokenizer(run.workdir)
    words = tokenizer.split_words(prompt)
    if not words:
        raise DataError("the prompt is empty: give a sentence to tag.")
    room = min(task.inputs.max_length, most or task.inputs.max_length)
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


def read_question(run: Run, wanted: Wanted) -> Reading:
    """A question, and a context in which the answer is."""
    prompt, target = wanted[:2]
    task = cast("QuestionAnswering", run.task)
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
        max_length=task.inputs.max_length,
        stride=task.stride,
        max_question_length=task.max_question_length,
    )
    notes = ()
    if len(windows.tokens) > 1:
        notes = (f"The context was cut: one row has {task.inputs.max_length:,} tokens.",)
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


def read_masked(run: Run, wanted: Wanted) -> Reading:
    """A text with masks; without one, every token is predicted where it stands."""
    prompt, target, most = wanted[:3]
    require_no_target(run, target)
    task = cast("MaskedLM", run.task)
    tokenizer: EncoderTokenizer = task.load_tokenizer(run.workdir)
    if not prompt.strip():
        raise DataError(f"the prompt is empty: give a text, with {tokenizer.names.mask} in it.")
    room = min(task.inputs.max_length, most or task.inputs.max_length)
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


def read_vector(run: Run, wanted: Wanted) -> Reading:
    """A text that becomes one vector, as the publisher of the model makes it."""
    prompt, target, most = wanted[:3]
    require_no_target(run, target)
    how = load_embedding(run.workdir)
    tokenizer: EncoderTokenizer = cast("Tokenized", run.task).load_tokenizer(run.workdir)
    if not prompt.strip():
        raise DataError("the prompt is empty: give a text.")
    before = how.prompt(None)
    # The prompt before the text alone is the last row, to find its length.
    texts = [(before + prompt).strip(), before.strip()]
    texts = [text.lower() for text in texts] if how.lowercase else texts
    room = min(how.max_length or run.model.context, run.model.context)
    rows = lay_out_texts(tokenizer, texts, None, min(room, most or room))
    notes = (f"The text was cut to its first {rows.lengths[0]:,} tokens.",) if rows.cut[0] else ()
    skipped = int(rows.lengths[1]) - 1 if before and not how.include_prompt else 0
    return _encoder_reading(
        tokenizer,
        {name: array[:1] for name, array in rows.arrays().items()},
        prompt=prompt,
        method="__call__",
        output="vector",
        pooling=how,
        num_prompt_tokens=skipped,
        notes=notes,
    )


def _encoder_reading(
    tokenizer: EncoderTokenizer, rows: Mapping[str, np.ndarray], **fields: Any
) -> Reading:
    """The reading of the only row of an encoder."""
    (length,) = rows["lengths"]
    width = rounded_up(int(length), rows["tokens"].shape[1])
    text_of = names_by(tokenizer)
    tokens = tuple(
        Token(text_of(int(i)), int(i), "special" if tokenizer.special[i] else "text")
        for i in rows["tokens"][0, :length]
    )
    inputs = (rows["tokens"][:, :width], rows["token_types"][:, :width], rows["lengths"])
    return Reading(
        family="encoder", inputs=inputs, stacks={"encoder": tokens}, text_of=text_of, **fields
    )
