"""Tagging words: names and other entities in a text (CoNLL)."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transformer.checks import require_fraction
from transformer.data.conll import (
    AlignedRows,
    TaggedSentences,
    align,
    read_conll,
    split_words,
    tag_ids,
    word_tags,
)
from transformer.data.play_tags import play_tags
from transformer.data.rows import Rows
from transformer.data.text import in_chunks, require_characters
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.scoring.entities import entities, entity_scores, entity_table
from transformer.tasks.base import Losses, Prediction, Shown
from transformer.tasks.base_encoder import EncoderData, EncoderTask, too_long
from transformer.tasks.base_labels import load_labels

# Lines that `predict` answers at once, at most.
_LINES_AT_ONCE = 128
# Of a sentence that is shown as an example, at most.
_SHOWN_WORDS = 30


class _Tagged(NamedTuple):
    """Sentences and the rows made of them."""

    sentences: TaggedSentences
    rows: AlignedRows


@dataclasses.dataclass(frozen=True)
class Tagging(EncoderTask):
    """A tag for each word; its fields are `config.task`. Devlin et al. 2019, section 5.3.

    Attributes:
        tokenizer: `wordpiece` or `bpe` (as BERT's and RoBERTa's, made from the training texts), or
            the path of a `vocab.txt` or `tokenizer.json`. A run that begins from another takes
            that one's.
        vocab_size: tokens of `wordpiece` or `bpe`.
        lowercase: of `wordpiece` and `vocab.txt`: as BERT's uncased models do, accents dropped.
        max_length: T, tokens of a row; longer sentences go on in further rows.
        batch_size: B, rows per step over all hosts and microbatches.
        validation_batch_size: rows per validation batch; None takes `batch_size`.
        train: a file in the format of CoNLL 2003; empty for names in Shakespeare's plays.
        validation: likewise; empty takes the end of `train`.
        validation_fraction: how much of its sentences.
        tag_column: of the tags, from 0; -1 is the last.
    """

    train: str = ""
    validation: str = ""
    validation_fraction: float = 0.1
    tag_column: int = -1

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: naming the field.
        """
        super().check()
        require_fraction("task", self, "validation_fraction")
        if self.validation and not self.train:
            raise ConfigError("config.task.validation needs config.task.train beside it.")

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> EncoderData:
        """Reads or makes the sentences, makes or loads the tokenizer, and tokenizes."""
        train, validation = self._read()
        # Whatever is no entity comes first: it is the tag of words without any piece.
        labels = ("O", *sorted({tag for tags in train.tags for tag in tags} - {"O"}))
        tokenizer = self.make_tokenizer(workdir, lambda: map(" ".join, train.words))
        rows = align(
            tokenizer,
            train.words,
            tag_ids(train, labels, "the training data"),
            max_length=self.max_length,
        )
        held_out = self._aligned(tokenizer, validation, labels, "the validation data")
        notes = (
            f"{len(train.words):,} sentences to train on, {len(validation.words):,} to validate "
            f"on; {len(labels)} tags.",
            *self._cut_words(rows, "the training data"),
            *self._cut_words(held_out, "the validation data"),
        )
        return EncoderData(
            tokenizer,
            labels,
            _arrays(rows),
            _arrays(held_out),
            _Tagged(validation, held_out),
            notes,
        )

    def load_validation(self, paths: Sequence[str], workdir: Path) -> EncoderData:
        """Other sentences to validate on, with the tokenizer and the tags of a run."""
        if len(paths) != 1:
            raise ConfigError("tags are evaluated from one file: give --path.")
        sentences = read_conll(paths[0], tag_column=self.tag_column)
        tokenizer, labels = self.load_tokenizer(workdir), load_labels(workdir)
        rows = self._aligned(tokenizer, sentences, labels, paths[0])
        arrays = _arrays(rows)
        notes = self._cut_words(rows, paths[0])
        return EncoderData(tokenizer, labels, arrays, arrays, _Tagged(sentences, rows), notes)

    def _read(self) -> tuple[TaggedSentences, TaggedSentences]:
        if not self.train:
            return play_tags()
        train = read_conll(self.train, tag_column=self.tag_column)
        if self.validation:
            return train, read_conll(self.validation, tag_column=self.tag_column)
        count = round(len(train.words) * self.validation_fraction)
        if not 0 < count < len(train.words):
            raise DataError(
                f"{self.train} has {len(train.words)} sentences: too few to keep some for "
                f"validation. Give more, or config.task.validation."
            )
        cut = len(train.words) - count
        return (
            TaggedSentences(train.words[:cut], train.tags[:cut]),
            TaggedSentences(train.words[cut:], train.tags[cut:]),
        )

    def _aligned(
        self, tokenizer: Any, sentences: TaggedSentences, labels: tuple[str, ...], where: str
    ) -> AlignedRows:
        ids = tag_ids(sentences, labels, where)
        return align(tokenizer, sentences.words, ids, max_length=self.max_length)

    def _cut_words(self, rows: AlignedRows, where: str) -> tuple[str, ...]:
        """What there is to say of words that have lost their ends."""
        count = np.count_nonzero(rows.cut)
        if not count:
            return ()
        return (
            f"{count:,} of {len(rows.cut):,} sentences of {where} have a word longer than "
            f"config.task.max_length ({self.max_length}), which has lost its end.",
        )

    # ------------------------------------------------------------------------------- loss

    def losses(
        self, model: nn.Module, params: Any, batch: Any, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of the tag at the first piece of each word."""
        inputs = (batch[name] for name in ("tokens", "token_types", "lengths"))
        outputs: Any = model.apply({"params": params}, *inputs, method="tag", rngs=rngs)
        labels = jnp.where(batch["valid"][:, None] > 0, batch["labels"], IGNORED)
        scores = cross_entropy(outputs, labels)
        loss = jnp.sum(scores.nll)
        metrics = {"loss": loss, "accuracy": jnp.sum(scores.correct)}
        return Losses(loss, jnp.sum(scores.weight), metrics)

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: Any, params: Any, data: EncoderData) -> dict[str, Any]:
        """Precision, recall and F1 of entities."""
        tagged: _Tagged = data.examples
        found = self._tags(model, params, data.labels, tagged)
        return entity_scores(found, tagged.sentences.tags)

    def show(self, model: Any, params: Any, data: EncoderData, workdir: Path) -> Shown:
        """A table by type and an example; all tags are written to `predictions.conll`."""
        tagged: _Tagged = data.examples
        words, truth = tagged.sentences
        found = self._tags(model, params, data.labels, tagged)
        with (workdir / "predictions.conll").open("w", encoding="utf-8") as file:
            for sentence in zip(words, truth, found, strict=True):
                file.writelines(f"{' '.join(row)}\n" for row in zip(*sentence, strict=True))
                file.write("\n")
        lines = [entity_table(found, truth)]
        short = [place for place, sentence in enumerate(words) if len(sentence) <= _SHOWN_WORDS]
        most = sorted(short, key=lambda place: len(entities(found[place])), reverse=True)
        lines += [f"  {marked(words[place], found[place])}" for place in most[:3]]
        return Shown("\n".join(lines), entity_scores(found, truth))

    def _tags(
        self,
        model: Any,
        params: Any,
        labels: Sequence[str],
        tagged: _Tagged,
        *,
        progress: bool = True,
    ) -> list[list[str]]:
        predicted = np.zeros(tagged.rows.tokens.shape, np.int64)
        if len(predicted):
            arrays = _arrays(tagged.rows)
            predicted = self.outputs(model, params, arrays, progress=progress).argmax(-1)
        sizes = [len(words) for words in tagged.sentences.words]
        tags = word_tags(tagged.rows, predicted, sizes, labels.index("O"))
        return [[labels[tag] for tag in of_sentence] for of_sentence in tags]

    # ---------------------------------------------------------------------------- predict

    def predict(
        self, model: Any, params: Any, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """The tags of each line: a sentence, its words with spaces between.

        Raises:
            DataError: for an empty line, which is named.
        """
        tokenizer, labels = self.load_tokenizer(workdir), load_labels(workdir)
        number = 0
        for chunk in in_chunks(lines, _LINES_AT_ONCE):
            sentences = [split_words(line) for line in chunk]
            for place, words in enumerate(sentences, number + 1):
                if not words:
                    raise DataError(f"line {place} of the input is empty: give a sentence.")
                require_characters(" ".join(words), f"line {place} of the input")
            number += len(chunk)
            rows = align(tokenizer, sentences, None, max_length=self.max_length)
            tagged = _Tagged(TaggedSentences(sentences, []), rows)
            found = self._tags(model, params, labels, tagged, progress=False)
            too_large = too_long(self.max_length, model.context, "a word of ")
            for words, tags, is_cut in zip(sentences, found, rows.cut, strict=True):
                spans = [
                    {"type": kind, "text": " ".join(words[first:end]), "start": first, "end": end}
                    for kind, first, end in sorted(entities(tags), key=lambda span: span[1])
                ]
                details = {"tags": tags, "entities": spans}
                yield Prediction(marked(words, tags), details, too_large if is_cut else "")


def marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """A sentence with its entities in brackets: `[PER Sir Toby] comes .`."""
    words = list(words)
    for kind, first, end in entities(tags):
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
