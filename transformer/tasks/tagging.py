"""Tagging words: names and other entities in a text (CoNLL), parts of speech, and the like."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from transformer.composition import FLAT
from transformer.data.labels.conll import (
    AlignedRows,
    TaggedSentences,
    align,
    read_conll,
    tag_ids,
    word_tags,
)
from transformer.data.labels.sources import TAGGED, read_tagged
from transformer.data.proteins.fasta import is_fasta
from transformer.data.proteins.residue_labels import read_residue_labels
from transformer.data.reading.text import in_chunks, require_characters
from transformer.data.rows import Rows
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.errors import ConfigError, DataError
from transformer.files import write_text
from transformer.limits import OneOf, Whole
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.scoring.entities import (
    OUTSIDE,
    entities,
    entity_scores,
    entity_table,
    prefixes_of,
    tag_accuracy,
    tell_entities,
)
from transformer.tasks.parts.abilities import Prediction
from transformer.tasks.parts.encoder import INPUTS, EncoderInput, too_long
from transformer.tasks.parts.labelled import LabelledRows
from transformer.tasks.parts.labels import distinct_names, load_labels
from transformer.tasks.parts.models import TextTagger
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.training_files import TrainingFiles
from transformer.types import Batch, Json, Params

# The most lines that `predict` answers at once.
_LINES_AT_ONCE = 128
# The most words of a sentence that is shown as an example.
_SHOWN_WORDS = 30
_INPUTS, _FILES = EncoderInput(), TrainingFiles()


class _Tagged(NamedTuple):
    """Sentences and the rows made of them."""

    sentences: TaggedSentences
    rows: AlignedRows


@dataclasses.dataclass(frozen=True)
class Tagging:
    """A tag for each word; its fields are `config.task`. Devlin et al. 2019, section 5.3.

    Sentences longer than a row go on in further rows.

    Attributes:
        inputs: how texts become rows.
        files: the files that are read.
        first_space: for `bpe`, where spaces are part of tokens: whether the first word of a
            sentence is preceded by a space like all others.
        train: a file in the format of CoNLL 2003, with tags of any kind; or a FASTA file with a
            line of labels below each sequence; empty for `embedded`.
        embedded: tagged sentences that need no file: `python` are functions of Python's standard
            library, with what each name stands for; `plays` are sentences of Shakespeare's plays,
            with the names of people and places.
        validation: as `train`; empty takes the end of `train`.
        validation_fraction: the fraction of its sentences for validation.
        tag_column: the column of the tags, from 0; -1 is the last.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size", "num_outputs")
    entry: ClassVar[str] = "tag"
    model_kind: ClassVar[type] = TextTagger

    inputs: Annotated[EncoderInput, FLAT] = _INPUTS
    files: Annotated[TrainingFiles, FLAT] = _FILES
    first_space: bool = True
    embedded: Annotated[str, OneOf(TAGGED)] = "python"
    tag_column: Annotated[int, Whole(-1000, 1000)] = -1

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> LabelledRows[_Tagged]:
        """Reads or makes the sentences, makes or loads the tokenizer, and tokenizes."""
        train, validation = self._read()
        found = {tag for tags in train.tags for tag in tags}
        # The tag for words outside of entities comes first.
        labels = (*({OUTSIDE} & found), *sorted(found - {OUTSIDE}))
        tokenizer = self._configured(
            self.inputs.make_tokenizer(workdir, map(" ".join, train.words))
        )
        rows = align(
            tokenizer,
            train.words,
            tag_ids(train, labels, "the training data"),
            max_length=self.inputs.max_length,
        )
        held_out = self._aligned(tokenizer, validation, labels, "the validation data")
        notes = (
            f"{len(train.words):,} sentences to train on, {len(validation.words):,} to validate "
            f"on; {len(labels)} tags.",
            *self._cut_words(rows, "the training data"),
            *self._cut_words(held_out, "the validation data"),
        )
        return LabelledRows(
            self.inputs,
            tokenizer,
            labels,
            _arrays(rows),
            _arrays(held_out),
            _Tagged(validation, held_out),
            notes,
        )

    def load_validation(self, paths: Sequence[str], workdir: Path) -> LabelledRows[_Tagged]:
        """Other sentences to validate on, with the tokenizer and the tags of a run."""
        if len(paths) != 1:
            raise ConfigError("tags are evaluated from one file: give --path.")
        sentences = self._read_file(paths[0])
        tokenizer, labels = self.load_tokenizer(workdir), _tag_names(workdir)
        rows = self._aligned(tokenizer, sentences, labels, paths[0])
        arrays = _arrays(rows)
        notes = self._cut_words(rows, paths[0])
        return LabelledRows(
            self.inputs, tokenizer, labels, arrays, arrays, _Tagged(sentences, rows), notes
        )

    def load_tokenizer(self, workdir: Path) -> EncoderTokenizer:
        """The tokenizer of a run."""
        return self._configured(self.inputs.load_tokenizer(workdir))

    def _configured(self, tokenizer: EncoderTokenizer) -> EncoderTokenizer:
        tokenizer.first_space = self.first_space
        return tokenizer

    def check_model(self, model: TextTagger) -> None:
        """Refuses a model with too few positions."""
        self.inputs.check_model(model)

    def example_inputs(self, model: TextTagger) -> tuple[Int[Array, "..."], ...]:
        """One row."""
        return self.inputs.example_inputs(model)

    def _read(self) -> tuple[TaggedSentences, TaggedSentences]:
        if not self.files.train:
            return read_tagged(self.embedded)
        train = self._read_file(self.files.train)
        if self.files.validation:
            return train, self._read_file(self.files.validation)
        total = len(train.words)
        cut = total - self.files.num_held_out(total, "sentences")
        return (
            TaggedSentences(train.words[:cut], train.tags[:cut]),
            TaggedSentences(train.words[cut:], train.tags[cut:]),
        )

    def _read_file(self, path: str) -> TaggedSentences:
        if is_fasta(path):
            return read_residue_labels(path)
        return read_conll(path, tag_column=self.tag_column)

    def _aligned(
        self,
        tokenizer: EncoderTokenizer,
        sentences: TaggedSentences,
        labels: tuple[str, ...],
        where: str,
    ) -> AlignedRows:
        ids = tag_ids(sentences, labels, where)
        return align(tokenizer, sentences.words, ids, max_length=self.inputs.max_length)

    def _cut_words(self, rows: AlignedRows, where: str) -> tuple[str, ...]:
        """The messages about words that were cut."""
        count = np.count_nonzero(rows.cut)
        if not count:
            return ()
        return (
            f"{count:,} of {len(rows.cut):,} sentences of {where} have a word longer than "
            f"config.task.max_length ({self.inputs.max_length}), which has lost its end.",
        )

    # ------------------------------------------------------------------------------- loss

    def losses(
        self, model: TextTagger, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of the tag at the first piece of each word."""
        inputs = (batch[name] for name in INPUTS)
        outputs: PyTree = model.apply({"params": params}, *inputs, method="tag", rngs=rngs)
        labels = jnp.where(batch["valid"][:, None] > 0, batch["labels"], IGNORED)
        scores = cross_entropy(outputs, labels)
        loss = jnp.sum(scores.nll)
        metrics = {"loss": loss, "accuracy": jnp.sum(scores.correct)}
        return Losses(loss, jnp.sum(scores.weight), metrics)

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: TextTagger, params: Params, data: LabelledRows[_Tagged]) -> Json:
        """Precision, recall and F1 of entities, and accuracy; for other tags only accuracy."""
        tagged = data.examples
        found = self._found(model, params, data.labels, tagged)
        return _scores([tags for tags, _ in found], tagged.sentences.tags, data.labels)

    def show(
        self, model: TextTagger, params: Params, data: LabelledRows[_Tagged], workdir: Path
    ) -> Shown:
        """Shows a table by type and an example; writes all tags to `predictions.conll`."""
        tagged = data.examples
        words, truth = tagged.sentences
        found = [tags for tags, _ in self._found(model, params, data.labels, tagged)]
        table = [
            "".join(f"{' '.join(row)}\n" for row in zip(*sentence, strict=True))
            for sentence in zip(words, truth, found, strict=True)
        ]
        write_text(workdir / "predictions.conll", "".join(f"{rows}\n" for rows in table))
        scores = _scores(found, truth, data.labels)
        prefixes = prefixes_of(data.labels)
        lines = [f"accuracy {scores['accuracy']:.4f}"]
        if tell_entities(data.labels):
            lines = [entity_table(found, truth, prefixes)]
        short = [place for place, sentence in enumerate(words) if len(sentence) <= _SHOWN_WORDS]
        richest = sorted(short, key=lambda place: len(entities(found[place])), reverse=True)
        lines += [f"  {marked(words[place], found[place], data.labels)}" for place in richest[:3]]
        return Shown("\n".join(lines), scores)

    def _found(
        self,
        model: TextTagger,
        params: Params,
        labels: Sequence[str],
        tagged: _Tagged,
        *,
        progress: bool = True,
    ) -> list[tuple[list[str], list[float]]]:
        """The tag of each word of each sentence, and its probability.

        A word without pieces gets the tag for words outside of entities.
        """
        shape = tagged.rows.tokens.shape
        predicted, best = np.zeros(shape, np.int64), np.zeros(shape)
        if len(predicted):
            arrays = _arrays(tagged.rows)
            outputs = self.inputs.outputs(model, params, arrays, self.entry, progress=progress)
            predicted = outputs.argmax(-1)
            best = 1.0 / np.exp(outputs - outputs.max(-1, keepdims=True)).sum(-1)
        sizes = [len(words) for words in tagged.sentences.words]
        names = (*labels, OUTSIDE)
        chosen = word_tags(tagged.rows, predicted, sizes, len(labels))
        shares = word_tags(tagged.rows, best, sizes, 1.0)
        return [
            ([names[tag] for tag in tags], probabilities)
            for tags, probabilities in zip(chosen, shares, strict=True)
        ]

    # ---------------------------------------------------------------------------- predict

    def predict(
        self, model: TextTagger, params: Params, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """The tags of each line: a sentence, its words separated by spaces, or residues.

        Raises:
            DataError: for an empty line, naming the line.
        """
        tokenizer, labels = self.load_tokenizer(workdir), _tag_names(workdir)
        number = 0
        for chunk in in_chunks(lines, _LINES_AT_ONCE):
            sentences = [tokenizer.split_words(line) for line in chunk]
            for place, words in enumerate(sentences, number + 1):
                if not words:
                    raise DataError(f"line {place} of the input is empty: give a sentence.")
                require_characters(" ".join(words), f"line {place} of the input")
            number += len(chunk)
            rows = align(tokenizer, sentences, None, max_length=self.inputs.max_length)
            tagged = _Tagged(TaggedSentences(sentences, []), rows)
            found = self._found(model, params, labels, tagged, progress=False)
            too_large = too_long(self.inputs.max_length, model.context, "a word of ")
            for words, (tags, probabilities), is_cut in zip(
                sentences, found, rows.cut, strict=True
            ):
                answer = _prediction(words, tags, probabilities, labels)
                yield answer._replace(cut=too_large if is_cut else "")


def _scores(
    found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, float]:
    if tell_entities(labels):
        return entity_scores(found, truth, prefixes_of(labels))
    return {"accuracy": tag_accuracy(found, truth)}


def _prediction(
    words: Sequence[str],
    tags: list[str],
    probabilities: list[float],
    labels: Sequence[str],
) -> Prediction:
    """The answer to a sentence: tags, their probabilities, and entities if tags mark entities."""
    spans = entities(tags, prefixes_of(labels)) if tell_entities(labels) else set()
    named = [
        {"type": kind, "text": " ".join(words[first:end]), "start": first, "end": end}
        for kind, first, end in sorted(spans, key=lambda span: span[1])
    ]
    details = {"tags": tags, "probabilities": probabilities, "entities": named}
    return Prediction(marked(words, tags, labels), details)


def _tag_names(workdir: Path) -> tuple[str, ...]:
    """The tags of a run with distinct names, except `O`, which may repeat."""
    labels = load_labels(workdir)
    return tuple(
        OUTSIDE if label == OUTSIDE else name
        for label, name in zip(labels, distinct_names(labels), strict=True)
    )


def marked(words: Sequence[str], tags: Sequence[str], labels: Sequence[str]) -> str:
    """A sentence with its entities in brackets, `[PER Sir Toby] comes .`, or `Sir/NOUN Toby/NOUN`.

    Args:
        words: the words of the sentence.
        tags: the tag of each word.
        labels: all tags that exist, which decide whether tags mark entities.
    """
    words = list(words)
    if not tell_entities(labels):
        return " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
    for kind, first, end in entities(tags, prefixes_of(labels)):
        words[first] = f"[{kind} {words[first]}"
        words[end - 1] += "]"
    return " ".join(words)


def _arrays(rows: AlignedRows) -> Rows:
    """The arrays that the model and the loss need."""
    return {
        "tokens": rows.tokens,
        "token_types": np.zeros_like(rows.tokens),
        "lengths": rows.lengths,
        "labels": rows.labels,
    }
