"""How an encoder turns texts into vectors, saved in the run's folder."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from transformer.data.reading.json_text import read_json_file
from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.types import Facts

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
EMBEDDING_FILE = "embedding.json"


@dataclasses.dataclass(frozen=True)
class Embedding:
    """How a model turns texts into vectors, as its publisher does.

    Attributes:
        pooling: how to pool the states of all tokens, start and separator included: `mean`;
            `mean_sqrt_len_tokens`, the sum divided by the root of their number; `weightedmean`, the
            mean weighted by position; `max`, the largest number in each dimension; `cls`, the state
            of the start token; or `lasttoken`, the state of the last token. The vectors of several
            are concatenated.
        normalize: whether vectors are scaled to length 1.
        max_length: the most tokens of a text; None takes the model's context.
        lowercase: whether texts are lowercased before they are tokenized.
        prompts: texts by name, one of which may be put in front of every text.
        default_prompt: the name of the prompt that is used by default.
        include_prompt: whether the prompt, and the start before it, are pooled, too.
    """

    pooling: tuple[str, ...] = ("mean",)
    normalize: bool = True
    max_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True

    def to_text(self) -> str:
        """The content of `embedding.json`."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1)

    def prompt(self, name: str | None) -> str:
        """The prompt that is put in front of every text.

        Args:
            name: the name of a prompt; None takes the default one, and there may be none.

        Raises:
            ConfigError: if there is no prompt of that name.
        """
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise ConfigError(f"there is no prompt {name!r}: the model has {known}.")
        return self.prompts[name]


def load_embedding(workdir: Path) -> Embedding:
    """How the vectors of a run are made: as its publisher does, or the mean, of length 1.

    Raises:
        WorkdirError: if the file is damaged.
    """
    path = workdir / EMBEDDING_FILE
    if not path.is_file():
        return Embedding()
    try:
        content = cast("Facts", read_json_file(path))
        return Embedding(**{**content, "pooling": tuple(content["pooling"])})
    except (DataError, TypeError, KeyError):
        raise WorkdirError(f"{path} is damaged: it says how vectors are made.") from None
