"""Tokens in front of a transcript, which tell a model like Whisper what to write.

They are `<|startoftranscript|><|en|><|transcribe|><|notimestamps|>` (Radford et al. 2023, section
2.3, figure 1). A model that writes English only has neither a language nor a task among them.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Int32

from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.errors import ConfigError
from transformer.limits import OneOf, Text

TASKS = ("transcribe", "translate")
_START, _PREVIOUS, _NO_TIMES = "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"
# The oldest vocabularies have the first name.
_NO_SPEECH = ("<|nocaptions|>", "<|nospeech|>")
_MARK = re.compile(r"<\|([a-z]{2,3})\|>")


class Marks(NamedTuple):
    """The tokens of a vocabulary like Whisper's that are no text.

    Attributes:
        end: ends a text; all tokens below it are text.
        start: begins a transcript.
        previous: begins the text that stands before this transcript.
        no_speech: stands for silence.
        no_times: says that the transcript has no times.
        languages: by code, such as `en`.
        tasks: by the names of `TASKS`.
    """

    end: int
    start: int
    previous: int
    no_speech: int
    no_times: int
    languages: Mapping[str, int]
    tasks: Mapping[str, int]

    @property
    def first_time(self) -> int:
        """The token of 0.00 seconds; those of 0.02, 0.04, ... follow."""
        return self.no_times + 1

    def language(self, code: str) -> int:
        """The token of a language.

        Raises:
            ConfigError: if the model does not know it.
        """
        if code not in self.languages:
            raise ConfigError(
                f"the language is {code!r}: the model knows {', '.join(sorted(self.languages))}."
            )
        return self.languages[code]


def marks_of(tokenizer: SentenceTokenizer) -> Marks | None:
    """The marks of a tokenizer; None if it is not like Whisper's."""
    ids = range(tokenizer.end, tokenizer.vocab_size)
    names = {name: index for index, name in zip(ids, tokenizer.tokens(ids), strict=True)}
    silent = next((names[name] for name in _NO_SPEECH if name in names), None)
    needed = [_START, _PREVIOUS, _NO_TIMES, *(f"<|{task}|>" for task in TASKS)]
    if silent is None or not names.keys() >= set(needed):
        return None
    found = ((_MARK.fullmatch(name), index) for name, index in names.items())
    return Marks(
        end=tokenizer.end,
        start=names[_START],
        previous=names[_PREVIOUS],
        no_speech=silent,
        no_times=names[_NO_TIMES],
        languages={match[1]: index for match, index in found if match},
        tasks={task: names[f"<|{task}|>"] for task in TASKS},
    )


def require_marks(tokenizer: SentenceTokenizer) -> Marks:
    """The marks of a tokenizer.

    Raises:
        ConfigError: if it has none.
    """
    found = marks_of(tokenizer)
    if found is None:
        raise ConfigError(
            f"the tokenizer lacks tokens such as {_START} and {_NO_TIMES}, which models like "
            f"Whisper need: leave config.task.prompt as it is, and config.task.decoding at another "
            f"value than windows."
        )
    return found


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model is asked to write; its fields are `config.task.prompt`.

    Attributes:
        language: the language that is spoken, as a code such as `en`. Empty for models that write
            one language only; `scripts/transcribe.py` otherwise finds it out.
        task: `transcribe` writes the language that is spoken, `translate` English.
        multilingual: whether the model knows several languages, and both tasks.
    """

    language: Text = ""
    task: Annotated[str, OneOf(TASKS)] = "transcribe"
    multilingual: bool = False

    def check(self) -> None:
        """Refuses values that cannot work together.

        Raises:
            ConfigError: names the field.
        """
        asked = {"language": self.language, "task": self.task}
        for field, value in asked.items():
            if value not in ("", TASKS[0]) and not self.multilingual:
                raise ConfigError(
                    f"config.task.prompt.{field} is {value!r}, and config.task.prompt.multilingual "
                    f"is False: a model of one language has no choice."
                )

    def tokens(self, tokenizer: SentenceTokenizer) -> Int32[np.ndarray, " p"]:
        """The tokens in front of a transcript to train on, without the one that begins it.

        Empty for tokenizers that have no such tokens.

        Raises:
            ConfigError: if the language is needed and not given, or the tokenizer lacks it.
        """
        marks = marks_of(tokenizer)
        if marks is None:
            if self.multilingual:
                require_marks(tokenizer)
            return np.zeros(0, np.int32)
        if self.multilingual and not self.language:
            raise ConfigError(
                "config.task.prompt.language is empty: give the code of the language that is "
                "spoken in the recordings, such as --config.task.prompt.language=en."
            )
        return np.array(self.opening(marks, self.language, times=False)[1:], np.int32)

    def opening(self, marks: Marks, language: str, *, times: bool) -> tuple[int, ...]:
        """All tokens in front of a transcript.

        Args:
            marks: of the tokenizer.
            language: the language that is spoken.
            times: whether the transcript has times.

        Raises:
            ConfigError: if the model does not know the language.
        """
        found = [marks.start]
        if self.multilingual:
            found += [marks.language(language), marks.tasks[self.task]]
        return (*found, *([] if times else [marks.no_times]))
