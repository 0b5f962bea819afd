"""What a model reads: the inputs of one call, and its tokens by name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from transformer.data.text.embeddings import Embedding
from transformer.data.tokenizers.protocol import Tokenizer
from transformer.errors import ConfigError
from transformer.explaining.pooling import Pools
from transformer.runs.opening import Run


class Token(NamedTuple):
    """One token of a stack.

    Attributes:
        text: the token as it is shown.
        id: its number; -1 for a token that is not of a vocabulary.
        kind: `text`, `special`, `patch`, `class`, `register`, `frame` or `silence`.
    """

    text: str
    id: int
    kind: str


class Grid(NamedTuple):
    """How a picture is cut into tokens, row by row.

    Attributes:
        rows: of the grid.
        columns: of the grid.
        front: tokens before those of the picture.
        kind: `image`, or `board` of a game.
    """

    rows: int
    columns: int
    front: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Sound:
    """What a model has heard of a recording.

    Attributes:
        frames: the features of the recording.
        edges: where each token of the encoder begins, and the last one ends, in seconds.
        second: from one vector of the encoder to the next, in seconds.
        is_silent: whether the last token stands for the silence behind the recording.
        ids: the transcript.
    """

    frames: Float[np.ndarray, "T M"]
    edges: tuple[float, ...]
    second: float
    is_silent: bool
    ids: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reading:
    """The inputs of one call of a model, with a batch of one.

    Texts are filled up to a few lengths, so that programs are compiled for few shapes; the tokens
    of `stacks` are without padding.

    Attributes:
        prompt: the text, or the path of the image or of the recording.
        target: the second text: the target of an encoder-decoder, the context of a question, the
            transcript of a recording.
        written: whether the model wrote the target itself.
        family: `decoder`, `encoder`, `encoder-decoder`, `image` or `recording` (an encoder alone).
        method: the method of the model to call, or a function of the model.
        inputs: its positional arguments.
        named: its named arguments.
        stacks: the tokens of each stack, by the stack's name.
        output: what the outputs are: `next_token`, `classes`, `token_classes`, `masked_tokens`,
            `span` or `vector`.
        names: the names of the outputs, if they have names.
        scores: for `classes`: `softmax`, `sigmoid` or `number`.
        positions: for `masked_tokens`: the places that are predicted.
        text_of: the text of a token id.
        pooling: for `vector`: how the states of all tokens become one.
        num_prompt_tokens: for `vector`: how many of the first tokens are not pooled.
        picture: the prepared image, or a drawn board.
        grid: the tokens of the picture.
        sound: what was heard.
        pools: which vectors of a recording share tokens; None if none do.
        padded: how many tokens each stack has in the model, for stacks whose tokens are not the
            inputs.
        notes: sentences about what was cut.
    """

    prompt: str
    family: str
    method: str | Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    stacks: Mapping[str, tuple[Token, ...]]
    output: str
    target: str | None = None
    written: bool = False
    named: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()
    scores: str = "softmax"
    positions: tuple[int, ...] = ()
    text_of: Callable[[int], str] = str
    pooling: Embedding | None = None
    num_prompt_tokens: int = 0
    picture: UInt8[np.ndarray, "Y X C"] | None = None
    grid: Grid | None = None
    sound: Sound | None = None
    pools: Pools | None = None
    padded: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Wanted(NamedTuple):
    """The arguments of `prompts.read`."""

    prompt: str
    target: str | None
    most: int | None
    append: tuple[int, ...]


def names_by(tokenizer: Tokenizer) -> Callable[[int], str]:
    """A function that gives the text of a token id: what the vocabulary has, or its number."""

    def text_of(index: int) -> str:
        known = index < tokenizer.vocab_size
        return (tokenizer.tokens([index])[0] if known else "") or f"<{index}>"

    return text_of


def require_no_target(run: Run, target: str | None) -> None:
    """Refuses a second text where a model reads one.

    Raises:
        ConfigError: if there is one.
    """
    if target is not None:
        raise ConfigError(
            f"{run.workdir} was trained for {run.config.task.name}, which reads one input: leave "
            f"the target out."
        )
