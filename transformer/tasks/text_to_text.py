"""One or several supervised tasks, each turning texts into texts (T5)."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar

from transformer.data.pairs.files import Pairs, PairTexts
from transformer.data.pairs.sources import TEXT_PAIRS, read_embedded_pairs
from transformer.data.pairs.texts import TextPairs, mixed, read_text_pairs
from transformer.errors import ConfigError
from transformer.limits import OneOf, Positive, Text, Whole
from transformer.scoring.rouge import rouge_scores
from transformer.tasks.parts.pairs import PairTask
from transformer.traced import RateOrOff
from transformer.types import Json


@dataclasses.dataclass(frozen=True)
class TextToText(PairTask):
    """Text to text with prefixes (Raffel et al. 2020, section 2.4); its fields are `config.task`.

    `PairTask` describes the other fields. `too_long=truncate` cuts long sources in training too:
    the rest of a source still suits the target.

    Attributes:
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

    CUTS_SOURCES: ClassVar[bool] = True

    prefix: Text = "summarize: "
    rates: tuple[Positive, ...] = ()
    embedded: Annotated[str, OneOf(TEXT_PAIRS)] = "purposes"
    max_length: Annotated[int, Whole(2, 1 << 20)] = 512
    max_target_length: Annotated[int, Whole(2, 1 << 24)] = 64
    label_smoothing: RateOrOff = 0.0

    def check(self) -> None:
        """Refuses values that cannot work."""
        super().check()
        if self.max_target_length > self.max_length:
            raise ConfigError(
                f"config.task.max_target_length ({self.max_target_length}) must not be more than "
                f"config.task.max_length ({self.max_length}): no batch has longer rows."
            )
        count = len(self.train.split(";"))
        for field, entries in (("validation", self.validation), ("prefix", self.prefix)):
            given = len(entries.split(";"))
            if given != count and (field == "prefix" or self.validation):
                raise ConfigError(
                    f"config.task.{field} has {given} entries and config.task.train {count}: give "
                    f"one for each task, with ; between."
                )
        if self.rates and len(self.rates) != count:
            raise ConfigError(
                f"config.task.rates has {len(self.rates)} numbers and config.task.train {count} "
                f"entries: give one for each task."
            )

    def read(self) -> PairTexts:
        """The pairs to train on, mixed, and those to validate on, one task after another."""
        prefixes = self.prefix.split(";")
        if not self.train:
            train, validation = read_embedded_pairs(self.embedded, self.validation_fraction)
            tasks = [tuple(_prefixed(pairs, prefixes[0]) for pairs in (train, validation))]
        else:
            tasks = []
            validation = self.validation.split(";") if self.validation else []
            for index, (paths, prefix) in enumerate(
                zip(self.train.split(";"), prefixes, strict=True)
            ):
                pairs = read_text_pairs(paths, prefix, "config.task.train")
                if validation:
                    field = "config.task.validation"
                    tasks.append((pairs, read_text_pairs(validation[index], prefix, field)))
                else:
                    tasks.append(pairs.split(self.validation_fraction, paths))
        train = mixed([task[0] for task in tasks], self.rates)
        return _texts(train, mixed([task[1] for task in tasks], ()))

    def read_others(self, paths: Sequence[str]) -> PairTexts:
        """Other pairs to validate on: a `.jsonl` file, or two files of lines."""
        prefix = self._only_prefix()
        others = read_text_pairs(",".join(paths), prefix, "--path, or --source and --reference,")
        return _texts(others.part([]), others)

    def output_scores(self, outputs: Sequence[str], references: Sequence[str]) -> Json:
        """ROUGE and exact matches."""
        same = sum(output == target for output, target in zip(outputs, references, strict=True))
        scores = rouge_scores(outputs, references)
        return {**scores, "exact_match": 100.0 * same / max(1, len(references))}

    def output_limits(self) -> dict[str, int]:
        """`max_target_length`, which counts the end."""
        return {"max_length": self.max_target_length - 1}

    def prompt(self, line: str) -> str:
        """Puts the prefix before the line, if all sources share one and the line lacks it."""
        prefix = self._only_prefix()
        return line if not line or line.startswith(prefix) else prefix + line

    @property
    def longest_target(self) -> int:
        """The most tokens of a target, its end included."""
        return self.max_target_length

    def _only_prefix(self) -> str:
        """The prefix of all sources; empty if tasks have different ones."""
        prefixes = set(self.prefix.split(";"))
        return prefixes.pop() if len(prefixes) == 1 else ""


def _prefixed(pairs: Pairs, prefix: str) -> TextPairs:
    return TextPairs([prefix] * len(pairs.source), *pairs)


def _texts(train: TextPairs, validation: TextPairs) -> PairTexts:
    groups = tuple(prefix.strip(" :") for prefix in validation.prefix)
    return PairTexts(train.prompts(), validation.prompts(), groups=groups)
