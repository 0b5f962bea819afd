"""Writing an answer after a text with a language model: supervised fine-tuning on pairs."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from transformer.composition import FLAT
from transformer.data.order import Batches
from transformer.data.pairs.completions import completion_rows
from transformer.data.pairs.files import Pairs
from transformer.data.pairs.sources import TEXT_PAIRS, read_embedded_pairs
from transformer.data.pairs.texts import TextPairs, read_text_pairs
from transformer.data.reading.text import in_chunks
from transformer.data.rows import Rows, RowSource, num_rows, rows_digest
from transformer.data.tokenizers.choosing import TokenizerChoice, require_tokenizer
from transformer.data.tokenizers.protocol import TextTokenizer
from transformer.decoding.sample import generate
from transformer.errors import ConfigError, DataError
from transformer.limits import OneOf, Text, Whole
from transformer.ops.logits import Sampling
from transformer.ops.losses import IGNORED
from transformer.progress import counting
from transformer.scoring.rouge import rouge_scores
from transformer.tasks.parts.abilities import Prediction
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.losses import LogitChunks, next_token_losses
from transformer.tasks.parts.models import TextDecoder
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.tasks.parts.training_files import TrainingFiles
from transformer.tasks.parts.writing import write_outputs
from transformer.types import Batch, Json, Params

_FILES, _TOKENIZER = TrainingFiles(), TokenizerChoice("bpe")
_ROWS, _CHUNKS = FixedRows(16), LogitChunks()
# A target is one line.
_STOP = "\n"
_GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class CompletionData:
    """Rows to train on and to validate on, with the pairs behind the latter.

    Attributes:
        tokenizer: the tokenizer of all texts.
        train: `tokens`, `labels` and `lengths` of the rows to train on; see `completion_rows`.
        validation: the same of those to validate on.
        validation_text: their pairs.
        rows: the rows of a batch.
        notes: what was cut or left out, as sentences.
    """

    tokenizer: TextTokenizer
    train: Rows
    validation: Rows
    validation_text: Pairs
    rows: FixedRows
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Sizes, padding, and what was cut or left out."""
        padding = 1.0 - self.train["lengths"].mean() / self.train["tokens"].shape[1]
        lines = [
            f"{num_rows(self.train):,} pairs to train on ({padding:.1%} padding), "
            f"{num_rows(self.validation):,} to validate on, {self.tokenizer.vocab_size:,} tokens "
            f"in the vocabulary.",
            *self.notes,
        ]
        return "\n".join(lines)

    def save(self, workdir: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save(workdir)

    def dimensions(self) -> dict[str, int]:
        """The vocabulary; the model may have more entries than the tokenizer, not fewer."""
        return {"vocab_size": self.tokenizer.vocab_size}

    def fingerprint(self) -> str:
        """Changes with the tokenizer (first part) and all rows."""
        digest = rows_digest((self.train, self.validation))
        return f"{tokenizer_digest(self.tokenizer)}-{digest}"

    def pace(self) -> Pace:
        """Examples are pairs; tokens are counted without padding."""
        lengths = self.train["lengths"]
        return self.rows.pace(len(lengths), float(lengths.mean()))

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """`tokens` and `labels`, both `[B, T]`, for each step."""
        return self.rows.train_batches(RowSource(self.train), seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        """Every validation pair once."""
        return self.rows.validation_batches(RowSource(self.validation))


@dataclasses.dataclass(frozen=True)
class Completion:
    """A decoder reads a source and writes a line after it; its fields are `config.task`.

    Only the target counts in the loss, as in the supervised step of Ouyang et al. 2022, section
    3.1. A row is prefix, source, suffix, a space, the target and the line feed that
    ends it.

    Attributes:
        files: which files are read.
        train: a `.jsonl` file of objects with `source` and `target` and perhaps `prefix`, or two
            line-aligned files separated by a comma; empty for `embedded`.
        validation: as `train`; empty takes the end of `train`.
        embedded: pairs that need no file; see the task `text_to_text`.
        prefix: the text before a source that has no prefix of its own.
        suffix: the text between source and target.
        tokenizer: the tokenizer of the texts.
        max_length: T, tokens of a row; longer sources lose their ends.
        max_target_length: the most tokens of a target, its end included, and of every answer.
        rows: the rows of a batch.
        validation_batch_size: rows per validation batch, and answers that are written at once; None
            takes `batch_size`.
        chunks: how many logits are held at once.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = TextDecoder

    files: Annotated[TrainingFiles, FLAT] = _FILES
    embedded: Annotated[str, OneOf(TEXT_PAIRS)] = "purposes"
    prefix: Text = ""
    suffix: Text = "\nSummary:"
    tokenizer: TokenizerChoice = _TOKENIZER
    max_length: Annotated[int, Whole(4, 1 << 20)] = 128
    max_target_length: Annotated[int, Whole(2, 1 << 20)] = 32
    rows: Annotated[FixedRows, FLAT] = _ROWS
    chunks: Annotated[LogitChunks, FLAT] = _CHUNKS

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.max_target_length >= self.max_length:
            raise ConfigError(
                f"config.task.max_target_length ({self.max_target_length}) must be less than "
                f"config.task.max_length ({self.max_length}), which holds the source as well."
            )

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> CompletionData:
        """Reads or makes the pairs, makes or loads the tokenizer, and tokenizes."""
        train, validation = self._read()
        texts = [*(source + self.suffix for source in train.source), *map(_answer, train.target)]
        tokenizer = self.tokenizer.of_run(TextTokenizer, workdir, texts)
        rows, cut, left_out = self._rows(tokenizer, train, training=True)
        held_out, _, _ = self._rows(tokenizer, validation)
        notes = [f"{cut:,} training sources are cut."] if cut else []
        if left_out:
            notes.append(
                f"{left_out:,} training pairs whose target has more than "
                f"{self.max_target_length - 1} tokens are left out."
            )
        if not num_rows(rows):
            raise DataError("no training pair has a target that fits: raise max_target_length.")
        return CompletionData(tokenizer, rows, held_out, validation, self.rows, tuple(notes))

    def load_validation(self, paths: Sequence[str], workdir: Path) -> CompletionData:
        """Other pairs to validate on, with the tokenizer of a run."""
        pairs = read_text_pairs(
            ",".join(paths), self.prefix, "--path, or --source and --reference,"
        ).prompts()
        tokenizer = self.load_tokenizer(workdir)
        rows, _, _ = self._rows(tokenizer, pairs)
        return CompletionData(tokenizer, rows, rows, pairs, self.rows)

    def load_tokenizer(self, workdir: Path) -> TextTokenizer:
        """The tokenizer of a run."""
        return require_tokenizer(TextTokenizer, workdir)

    def check_model(self, model: TextDecoder) -> None:
        """Refuses a model with fewer positions than a row has."""
        if self.max_length > model.context:
            raise ConfigError(
                f"config.task.max_length ({self.max_length}) is longer than config.model.context "
                f"({model.context}): the model has no positions for it."
            )

    def _read(self) -> tuple[Pairs, Pairs]:
        """Sources with their prefix, and targets."""
        files = self.files
        if not files.train:
            parts = read_embedded_pairs(self.embedded, files.validation_fraction)
            train, validation = (
                TextPairs([self.prefix] * len(pairs.source), *pairs) for pairs in parts
            )
        else:
            train = read_text_pairs(files.train, self.prefix, "config.task.train")
            if files.validation:
                field = "config.task.validation"
                validation = read_text_pairs(files.validation, self.prefix, field)
            else:
                train, validation = train.split(files.validation_fraction, files.train)
        return train.prompts(), validation.prompts()

    def _rows(
        self, tokenizer: TextTokenizer, pairs: Pairs, *, training: bool = False
    ) -> tuple[Rows, int, int]:
        """Rows, how many sources were cut, and how many pairs were left out."""
        return completion_rows(
            [tokenizer.encode_prompt(source) for source in pairs.source],
            tokenizer.encode(self.suffix),
            tokenizer.encode_all([_answer(target) for target in pairs.target]),
            max_length=self.max_length,
            max_target_length=self.max_target_length,
            training=training,
        )

    # ------------------------------------------------------------------------------- loss

    def example_inputs(self, model: TextDecoder) -> tuple[Int[Array, "1 T"]]:
        """One row."""
        return (jnp.zeros((1, self.max_length), jnp.int32),)

    def losses(
        self, model: TextDecoder, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every token of the target, plus the model's auxiliary losses."""
        real = jnp.arange(batch["tokens"].shape[1]) < batch["lengths"][:, None]
        labels = jnp.where(batch["valid"][:, None] > 0, batch["labels"], IGNORED)
        rows = {"tokens": batch["tokens"], "labels": labels}
        return next_token_losses(model, params, rows, rngs, self.chunks.vocab_chunk, valid=real)

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: TextDecoder, params: Params, data: CompletionData) -> Json:
        """ROUGE and exact matches of the most probable answers, in percent."""
        return self._scored(model, params, data)[1]

    def show(
        self, model: TextDecoder, params: Params, data: CompletionData, workdir: Path
    ) -> Shown:
        """Shows scores and some answers; writes all to `outputs.tsv`."""
        answers, scores = self._scored(model, params, data)
        source, target = data.validation_text
        write_outputs(workdir / "outputs.tsv", data.validation_text, answers)
        shown = [f"{name:<24} {value:.2f}" for name, value in scores.items()]
        for index in np.linspace(0, len(answers) - 1, min(3, len(answers))).astype(int):
            shown += [f"  {source[index]}", f"  -> {answers[index]}", f"  not {target[index]}"]
        return Shown("\n".join(shown), scores)

    def _scored(
        self, model: TextDecoder, params: Params, data: CompletionData
    ) -> tuple[list[str], dict[str, float]]:
        source, target = data.validation_text
        with counting(len(source), "answered", "texts") as update:
            answers: list[str] = []
            for chunk in in_chunks(source, self.rows.in_validation):
                answers += self._answers(model, params, data.tokenizer, chunk)
                update(len(answers))
        same = sum(a == _one_line(b) for a, b in zip(answers, target, strict=True))
        scores = rouge_scores(answers, target)
        return answers, {**scores, "exact_match": 100.0 * same / max(1, len(target))}

    def _answers(
        self,
        model: TextDecoder,
        params: Params,
        tokenizer: TextTokenizer,
        sources: Sequence[str],
    ) -> list[str]:
        """The most probable line after each source, token by token."""
        suffix = tokenizer.encode(self.suffix)
        room = max(1, self.max_length - self.max_target_length - len(suffix))
        prompts = [
            np.concatenate([tokenizer.encode_prompt(source)[:room], suffix]) for source in sources
        ]
        texts = [""] * len(prompts)
        ids: list[list[int]] = [[] for _ in prompts]
        chunks = generate(
            model,
            params,
            prompts,
            max_new_tokens=self.max_target_length,
            sampling=_GREEDY,
            seed=0,
        )
        for chunk in chunks:
            for row, new in enumerate(chunk.tolist()):
                ids[row] += new
                texts[row] = tokenizer.decode(ids[row])
            if all(_STOP in text for text in texts):
                break
        return [text.partition(_STOP)[0].strip() for text in texts]

    # ---------------------------------------------------------------------------- predict

    def predict(
        self, model: TextDecoder, params: Params, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """The answer to each line, a source without its prefix."""
        tokenizer = self.load_tokenizer(workdir)
        for chunk in in_chunks(lines, self.rows.in_validation):
            sources = [self.prefix + line.strip() for line in chunk]
            for answer in self._answers(model, params, tokenizer, sources):
                yield Prediction(answer, {"answer": answer})


def _answer(target: str) -> str:
    """A target as it stands in a row."""
    return f" {_one_line(target)}{_STOP}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
