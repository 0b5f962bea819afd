"""Classifying texts and pairs of texts, with one or several labels, or regression."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from transformer.composition import FLAT
from transformer.data.labels.sources import LABELLED, read_embedded
from transformer.data.labels.tables import (
    LabelledTexts,
    label_ids,
    label_sets,
    numbers,
    read_labelled_texts,
    split,
)
from transformer.data.reading.text import in_chunks, require_characters
from transformer.data.rows import Rows
from transformer.data.text.rows import lay_out_texts
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.errors import ConfigError, DataError
from transformer.files import write_json_lines
from transformer.limits import Count, OneOf, Text
from transformer.ops.losses import IGNORED, binary_cross_entropy, cross_entropy
from transformer.pictures.confusion import draw_confusion_matrix
from transformer.scoring.classification import (
    classification_scores,
    confusion_matrix,
    most_confused,
    regression_scores,
)
from transformer.scoring.several_labels import label_set_scores
from transformer.tasks.parts.abilities import Prediction
from transformer.tasks.parts.encoder import INPUTS, EncoderInput, too_long
from transformer.tasks.parts.labelled import LabelledRows
from transformer.tasks.parts.labels import (
    class_prediction,
    distinct_names,
    labels_prediction,
    load_labels,
    sigmoid,
)
from transformer.tasks.parts.models import TextClassifier
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.training_files import TrainingFiles
from transformer.traced import RateOrOff
from transformer.types import Batch, Json, Params

# The most lines that `predict` answers at once.
_LINES_AT_ONCE = 256
# A larger fraction of unknown tokens is reported.
_UNKNOWN = 0.02
_INPUTS, _FILES = EncoderInput(), TrainingFiles()

_Data = LabelledRows[LabelledTexts]


@dataclasses.dataclass(frozen=True)
class TextClassification:
    """One class, several, or a number for each text or text pair; its fields are `config.task`.

    Texts longer than a row are cut at the end.

    Attributes:
        inputs: how texts become rows.
        files: the files that are read.
        train: a `.jsonl`, `.csv` or `.tsv` file, or a folder with a folder of `.txt` files for each
            label; empty for `embedded`.
        validation: as `train`; empty takes a part of `train`.
        validation_fraction: the fraction of `train` for validation.
        embedded: texts that need no file: `languages` are strings of Django's catalogues, to be
            classified by language; `peptides` are those that kill microbes, and others.
        text: the column, or key, of the text.
        second: the column, or key, of the second text of a pair; empty for single texts.
        label: the column, or key, of the label.
        regression: whether labels are numbers and the squared error is minimised.
        sigmoid: for regression: whether numbers lie between 0 and 1, the output goes through a
            sigmoid and cross-entropy is minimised, as in cross-encoders.
        multi_label: whether a text has any number of labels, each with a separate probability, and
            the binary cross-entropy of each label is minimised. The label column then holds labels
            separated by `label_separator`, or nothing; JSON may have a list.
        label_separator: the separator for `multi_label`.
        class_weights: `none`, or `balanced`: the loss of a class is weighted by its rarity, so that
            all classes count the same in total.
        label_smoothing: see `ops.losses.cross_entropy`.
        max_examples: the most training examples, chosen at random; None takes all.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size", "num_outputs")
    entry: ClassVar[str] = "classify"
    model_kind: ClassVar[type] = TextClassifier

    inputs: Annotated[EncoderInput, FLAT] = _INPUTS
    files: Annotated[TrainingFiles, FLAT] = _FILES
    embedded: Annotated[str, OneOf(LABELLED)] = "languages"
    text: Text = "text"
    second: Text = ""
    label: Text = "label"
    regression: bool = False
    sigmoid: bool = False
    multi_label: bool = False
    label_separator: Text = ","
    class_weights: Annotated[str, OneOf(("none", "balanced"))] = "none"
    label_smoothing: RateOrOff = 0.0
    max_examples: Count | None = None

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.regression and not self.files.train:
            raise ConfigError(
                "config.task.regression needs config.task.train: config.task.embedded has names."
            )
        kinds = {"regression": self.regression, "multi_label": self.multi_label}
        for field in (kind for kind, chosen in kinds.items() if chosen):
            if self.class_weights != "none" or self.label_smoothing:
                raise ConfigError(
                    f"config.task.{field} has no classes of which one is right: leave "
                    f"config.task.class_weights and config.task.label_smoothing as they are."
                )
        if self.regression and self.multi_label:
            raise ConfigError("config.task has both regression and multi_label: choose one.")
        if self.sigmoid and not self.regression:
            raise ConfigError("config.task.sigmoid is of config.task.regression: set that, too.")
        if self.multi_label and not self.label_separator.strip():
            raise ConfigError("config.task.label_separator is empty: give one, such as a comma.")

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> _Data:
        """Reads or makes the texts, makes or loads the tokenizer, and tokenizes."""
        train, validation = self._read()
        labels = self._labels(train)
        if self.max_examples is not None and self.max_examples < len(train.texts):
            order = np.random.default_rng(0).permutation(len(train.texts))
            train = _chosen(train, np.sort(order[: self.max_examples]).tolist())
        tokenizer = self.inputs.make_tokenizer(workdir, [*train.texts, *(train.seconds or [])])
        notes: list[str] = []
        rows = self._rows(tokenizer, train, labels, "the training data", notes)
        return LabelledRows(
            self.inputs,
            tokenizer,
            labels,
            {**rows, "weight": self._weights(rows["label"], len(labels))},
            _unweighted(self._rows(tokenizer, validation, labels, "the validation data", notes)),
            validation,
            (f"{len(labels)} labels.", *notes),
        )

    def load_validation(self, paths: Sequence[str], workdir: Path) -> _Data:
        """Other texts to validate on, with the tokenizer and the labels of a run."""
        if len(paths) != 1:
            raise ConfigError(
                "texts and labels are evaluated from one file or folder: give --path."
            )
        texts = self._read_file(paths[0])
        tokenizer, labels = self.load_tokenizer(workdir), distinct_names(load_labels(workdir))
        notes: list[str] = []
        rows = _unweighted(self._rows(tokenizer, texts, labels, paths[0], notes))
        return LabelledRows(self.inputs, tokenizer, labels, rows, rows, texts, tuple(notes))

    def load_tokenizer(self, workdir: Path) -> EncoderTokenizer:
        """The tokenizer of a run."""
        return self.inputs.load_tokenizer(workdir)

    def check_model(self, model: TextClassifier) -> None:
        """Refuses a model with too few positions."""
        self.inputs.check_model(model)

    def example_inputs(self, model: TextClassifier) -> tuple[Int[Array, "..."], ...]:
        """One row."""
        return self.inputs.example_inputs(model)

    def _read(self) -> tuple[LabelledTexts, LabelledTexts]:
        if not self.files.train:
            return read_embedded(self.embedded)
        train = self._read_file(self.files.train)
        if self.files.validation:
            return train, self._read_file(self.files.validation)
        total = len(train.texts)
        count = self.files.num_held_out(total, "examples")
        order = np.random.default_rng(0).permutation(total)
        held_out = np.sort(order[:count]).tolist()
        return _chosen(train, np.sort(order[count:]).tolist()), _chosen(train, held_out)

    def _read_file(self, path: str) -> LabelledTexts:
        separator = self.label_separator if self.multi_label else ""
        return read_labelled_texts(
            path, text=self.text, second=self.second, label=self.label, separator=separator
        )

    def _labels(self, train: LabelledTexts) -> tuple[str, ...]:
        """Names of the outputs."""
        if self.regression:
            return ("value",)
        if not self.multi_label:
            return tuple(sorted(set(train.labels)))
        found = {name for labels in train.labels for name in split(labels, self.label_separator)}
        if not found:
            raise DataError(f"{self.files.train} has no labels: there is nothing to learn.")
        return tuple(sorted(found))

    def _rows(
        self,
        tokenizer: EncoderTokenizer,
        texts: LabelledTexts,
        labels: tuple[str, ...],
        where: str,
        notes: list[str],
    ) -> dict[str, np.ndarray]:
        laid_out = lay_out_texts(tokenizer, texts.texts, texts.seconds, self.inputs.max_length)
        if laid_out.num_cut:
            notes.append(
                f"{laid_out.num_cut:,} of {len(texts.texts):,} examples of {where} are longer than "
                f"config.task.max_length ({self.inputs.max_length}) and have lost their ends."
            )
        if laid_out.unknown > _UNKNOWN:
            notes.append(
                f"{laid_out.unknown:.1%} of the tokens of {where} are unknown: the tokenizer was "
                f"made for other texts."
            )
        if self.regression:
            found = numbers(texts.labels, where)
            if self.sigmoid and np.any((found < 0.0) | (found > 1.0)):
                raise DataError(
                    f"{where}: config.task.sigmoid needs numbers from 0 to 1, and they are from "
                    f"{found.min()} to {found.max()}."
                )
            return {**laid_out.arrays(), "label": found}
        if self.multi_label:
            sets = label_sets(texts.labels, labels, self.label_separator, where)
            return {**laid_out.arrays(), "label": sets}
        return {**laid_out.arrays(), "label": label_ids(texts.labels, labels, where)}

    def _weights(self, ids: np.ndarray, num_classes: int) -> np.ndarray:
        if self.class_weights == "none":
            return np.ones(len(ids), np.float32)
        counts = np.bincount(ids, minlength=num_classes)
        present = np.count_nonzero(counts)
        return (len(ids) / (present * np.maximum(counts, 1)))[ids].astype(np.float32)

    # ------------------------------------------------------------------------------- loss

    def losses(
        self, model: TextClassifier, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of the class or of each label, or the squared error of the number."""
        inputs = (batch[name] for name in INPUTS)
        outputs: PyTree = model.apply({"params": params}, *inputs, method="classify", rngs=rngs)
        valid = batch["valid"].astype(jnp.float32)
        weight = batch["weight"] * valid
        metrics = {}
        if self.multi_label or self.sigmoid:
            truth = batch["label"] if self.multi_label else batch["label"][:, None]
            objective = jnp.mean(binary_cross_entropy(outputs, truth.astype(jnp.float32)), axis=-1)
            metrics = {"loss": jnp.sum(objective * valid)}
            if self.multi_label:
                exact = jnp.all((outputs >= 0.0) == (truth > 0), axis=-1)
                metrics["accuracy"] = jnp.sum(exact * valid)
        elif self.regression:
            objective = jnp.square(outputs[:, 0] - batch["label"])
            metrics = {"loss": jnp.sum(objective * valid)}
        else:
            labels = jnp.where(valid > 0, batch["label"], IGNORED)
            scores = cross_entropy(outputs, labels, label_smoothing=self.label_smoothing)
            metrics = {"loss": jnp.sum(scores.nll), "accuracy": jnp.sum(scores.correct)}
            objective = scores.objective
        count = jnp.sum(valid)
        return Losses(
            jnp.sum(objective * weight),
            jnp.sum(weight),
            metrics,
            dict.fromkeys(metrics, count),
        )

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: TextClassifier, params: Params, data: _Data) -> Json:
        """Accuracy, F1 and, for single labels, Matthews correlation; for numbers, correlations."""
        return self._scores(self.inputs.outputs(model, params, data.validation, self.entry), data)

    def _scores(self, outputs: np.ndarray, data: _Data) -> dict[str, float]:
        truth = data.validation["label"]
        if self.regression:
            return regression_scores(self._numbers(outputs), truth)
        if self.multi_label:
            return label_set_scores(outputs >= 0.0, truth > 0)
        return classification_scores(outputs.argmax(-1), truth, len(data.labels))

    def show(
        self,
        model: TextClassifier,
        params: Params,
        data: _Data,
        workdir: Path,
    ) -> Shown:
        """Shows scores and the most frequent confusions, and draws all confusions.

        All predictions are written to `predictions.jsonl`.
        """
        outputs = self.inputs.outputs(model, params, data.validation, self.entry)
        scores = self._scores(outputs, data)
        lines = [f"{name:<20} {value:.4f}" for name, value in scores.items()]
        found = [self._prediction(row, data.labels).details for row in outputs]
        texts = data.examples
        rows = (
            {"text": text, "label": label, **details}
            for text, label, details in zip(texts.texts, texts.labels, found, strict=True)
        )
        write_json_lines(workdir / "predictions.jsonl", rows)
        if not (self.regression or self.multi_label):
            matrix = confusion_matrix(
                outputs.argmax(-1), data.validation["label"], len(data.labels)
            )
            draw_confusion_matrix(matrix, data.labels, workdir / "confusion.png")
            for truth, predicted, count in most_confused(matrix, data.labels):
                lines.append(f"  {truth} taken for {predicted}: {count}")
        return Shown("\n".join(lines), scores)

    # ---------------------------------------------------------------------------- predict

    def predict(
        self, model: TextClassifier, params: Params, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """Label and probability, or the number, for each line.

        A pair is two texts separated by a tab.

        Raises:
            DataError: for an empty text, or a single text instead of a pair, naming the line.
        """
        tokenizer, labels = self.load_tokenizer(workdir), load_labels(workdir)
        number = 0
        for chunk in in_chunks(lines, _LINES_AT_ONCE):
            firsts, seconds = [], []
            for line in chunk:
                number += 1
                texts = line.split("\t") if self.second else [line]
                if len(texts) != (2 if self.second else 1):
                    raise DataError(
                        f"line {number} of the input has {len(texts)} parts: two texts with a tab "
                        f"between were expected, as the run has been trained on pairs."
                    )
                if not all(text.strip() for text in texts):
                    raise DataError(f"line {number} of the input is empty: give a text.")
                require_characters(line, f"line {number} of the input")
                firsts.append(texts[0])
                seconds.append(texts[-1])
            pairs = seconds if self.second else None
            rows = lay_out_texts(tokenizer, firsts, pairs, self.inputs.max_length)
            outputs = self.inputs.outputs(model, params, rows.arrays(), self.entry, progress=False)
            for output, cut in zip(outputs, rows.cut, strict=True):
                found = self._prediction(output, labels)
                yield found._replace(
                    cut=too_long(self.inputs.max_length, model.context) if cut else ""
                )

    def _prediction(self, output: np.ndarray, labels: Sequence[str]) -> Prediction:
        if self.multi_label:
            return labels_prediction(output, labels)
        if not self.regression:
            return class_prediction(output, labels)
        value = float(self._numbers(output[None])[0])
        details = {"value": value} | ({"logit": float(output[0])} if self.sigmoid else {})
        return Prediction(f"{value:.4f}", details)

    def _numbers(self, outputs: np.ndarray) -> np.ndarray:
        """The number of each row."""
        return sigmoid(outputs[:, 0]) if self.sigmoid else outputs[:, 0]


def _unweighted(rows: Rows) -> Rows:
    """Rows that all have the same weight."""
    return {**rows, "weight": np.ones(len(rows["label"]), np.float32)}


def _chosen(texts: LabelledTexts, places: Sequence[int]) -> LabelledTexts:
    return LabelledTexts(
        [texts.texts[place] for place in places],
        None if texts.seconds is None else [texts.seconds[place] for place in places],
        [texts.labels[place] for place in places],
    )
