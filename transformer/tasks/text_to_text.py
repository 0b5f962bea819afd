"""One or several supervised tasks, each turning texts into texts (T5)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Int

from transformer.composition import FLAT
from transformer.data.pairs.files import Pairs, PairTexts
from transformer.data.pairs.sources import TEXT_PAIRS, read_embedded_pairs
from transformer.data.pairs.texts import TextPairs, mixed, read_text_pairs
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.translate import Beam
from transformer.errors import ConfigError
from transformer.limits import OneOf, Positive, Text, Whole
from transformer.scoring.rouge import rouge_scores
from transformer.tasks.parts.models import SequenceToSequence
from transformer.tasks.parts.pairs import PairData, PairLayout
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.training_files import TrainingFiles
from transformer.tasks.parts.writing import Writing, outputs_and_scores, show_outputs
from transformer.types import Batch, Json, Params

_FILES, _LAYOUT = TrainingFiles(validation_fraction=0.05), PairLayout(max_length=512)
_WRITING = Writing(label_smoothing=0.0)


@dataclasses.dataclass(frozen=True)
class TextToText:
    """Text to text with prefixes (Raffel et al. 2020, section 2.4); its fields are `config.task`.

    `too_long=truncate` cuts long sources in training too: the rest of a source still suits the
    target.

    Attributes:
        files: which files are read.
        layout: how pairs become tokens, and tokens batches.
        writing: the loss, and the search for outputs.
        train: a `.jsonl` file of objects with `source`, `target` and perhaps `prefix`, or two
            line-aligned files separated by a comma, `SOURCE,TARGET`, plain or gzip; for several
            tasks such entries separated by `;`. Empty for pairs that need no file.
        validation: as `train`, in the same order; empty takes the end of each task's pairs.
        prefix: put before every source without its own prefix; for several tasks their prefixes
            separated by `;`, white space included.
        rates: the relative frequencies of the tasks' pairs; empty visits every pair once in an
            epoch.
        embedded: pairs that need no file: `purposes` are functions and classes of installed
            packages with the rest of their docstrings, and what they are for, whole packages held
            out; `summaries` are docstrings of Python's standard library and their first lines,
            whole modules held out.
        max_target_length: the most tokens of a target, its end included, and of every output.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = SequenceToSequence

    files: Annotated[TrainingFiles, FLAT] = _FILES
    layout: Annotated[PairLayout, FLAT] = _LAYOUT
    writing: Annotated[Writing, FLAT] = _WRITING
    prefix: Text = "summarize: "
    rates: tuple[Positive, ...] = ()
    embedded: Annotated[str, OneOf(TEXT_PAIRS)] = "purposes"
    max_target_length: Annotated[int, Whole(2, 1 << 24)] = 64

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.max_target_length > self.max_length:
            raise ConfigError(
                f"config.task.max_target_length ({self.max_target_length}) must not be more than "
                f"config.task.max_length ({self.max_length}): no batch has longer rows."
            )
        count, validation = len(self.files.train.split(";")), self.files.validation
        for field, entries in (("validation", validation), ("prefix", self.prefix)):
            given = len(entries.split(";"))
            if given != count and (field == "prefix" or validation):
                raise ConfigError(
                    f"config.task.{field} has {given} entries and config.task.train {count}: give "
                    f"one for each task, with ; between."
                )
        if self.rates and len(self.rates) != count:
            raise ConfigError(
                f"config.task.rates has {len(self.rates)} numbers and config.task.train {count} "
                f"entries: give one for each task."
            )

    @property
    def max_length(self) -> int:
        """The most tokens of a source, its end included."""
        return self.layout.max_length

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> PairData:
        """Reads or makes the pairs, makes or loads the tokenizer, and tokenizes."""
        longest = self.max_target_length
        return self.layout.load(self.read(), workdir, longest_target=longest, cut_sources=True)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> PairData:
        """Other pairs to validate on, with the tokenizer of a run.

        Args:
            paths: a `.jsonl` file, or two files of lines.
            workdir: the folder of the run.
        """
        prefix = self._only_prefix()
        pairs = read_text_pairs(",".join(paths), prefix, "--path, or --source and --reference,")
        others, longest = _texts(pairs.part([]), pairs), self.max_target_length
        return self.layout.load_validation(
            others, workdir, longest_target=longest, cut_sources=True
        )

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run."""
        return self.layout.load_tokenizer(workdir)

    def read(self) -> PairTexts:
        """The pairs to train on, mixed, and those to validate on, one task after another."""
        files, prefixes = self.files, self.prefix.split(";")
        if not files.train:
            train, validation = read_embedded_pairs(self.embedded, files.validation_fraction)
            tasks = [tuple(_prefixed(pairs, prefixes[0]) for pairs in (train, validation))]
        else:
            tasks = []
            validation = files.validation.split(";") if files.validation else []
            for index, (entry, prefix) in enumerate(
                zip(files.train.split(";"), prefixes, strict=True)
            ):
                pairs = read_text_pairs(entry, prefix, "config.task.train")
                if validation:
                    field = "config.task.validation"
                    tasks.append((pairs, read_text_pairs(validation[index], prefix, field)))
                else:
                    tasks.append(pairs.split(files.validation_fraction, entry))
        train = mixed([task[0] for task in tasks], self.rates)
        return _texts(train, mixed([task[1] for task in tasks], ()))

    def check_model(self, model: SequenceToSequence) -> None:
        """Nothing to check: all encoder-decoders can do the job."""

    def example_inputs(self, model: SequenceToSequence) -> tuple[Int[Array, "1 T"], ...]:
        """One pair of the greatest length."""
        return self.layout.example_inputs()

    # ------------------------------------------------------------------- loss and outputs

    def losses(
        self, model: SequenceToSequence, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every token of the target."""
        return self.writing.losses(model, params, batch, rngs)

    def encode_sources(
        self, tokenizer: SentenceTokenizer, lines: Sequence[str], first: int = 0
    ) -> tuple[list[np.ndarray], int]:
        """Token ids of lines with their prefix, and how many were cut; see `PairLayout`."""
        lines = [self.prompt(line.strip()) for line in lines]
        return self.layout.encode_sources(tokenizer, lines, first)

    def beam(self, **changes: object) -> Beam:
        """The search that the config asks for, with `changes` applied."""
        # The beam does not count the end.
        return self.writing.beam({"max_length": self.max_target_length - 1}, **changes)

    def output_scores(self, outputs: Sequence[str], references: Sequence[str]) -> Json:
        """ROUGE and exact matches."""
        same = sum(output == target for output, target in zip(outputs, references, strict=True))
        scores = rouge_scores(outputs, references)
        return {**scores, "exact_match": 100.0 * same / max(1, len(references))}

    def scores(self, model: SequenceToSequence, params: Params, data: PairData) -> Json:
        """Scores of the outputs for the validation pairs."""
        return outputs_and_scores(self, model, params, data)[1]

    def show(
        self, model: SequenceToSequence, params: Params, data: PairData, workdir: Path
    ) -> Shown:
        """Shows scores and some outputs; writes all to `outputs.tsv`."""
        return show_outputs(self, model, params, data, workdir / "outputs.tsv")

    def prompt(self, line: str) -> str:
        """Puts the prefix before the line, if all sources share one and the line lacks it."""
        prefix = self._only_prefix()
        return line if not line or line.startswith(prefix) else prefix + line

    def _only_prefix(self) -> str:
        """The prefix of all sources; empty if tasks have different ones."""
        prefixes = set(self.prefix.split(";"))
        return prefixes.pop() if len(prefixes) == 1 else ""


def _prefixed(pairs: Pairs, prefix: str) -> TextPairs:
    return TextPairs([prefix] * len(pairs.source), *pairs)


def _texts(train: TextPairs, validation: TextPairs) -> PairTexts:
    groups = tuple(prefix.strip(" :") for prefix in validation.prefix)
    return PairTexts(train.prompts(), validation.prompts(), groups=groups)
