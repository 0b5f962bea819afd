"""Pretraining an encoder-decoder on raw text: hidden spans, or the rest of a text (T5)."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from transformer.composition import FLAT
from transformer.data.order import Batches
from transformer.data.reading.text import read_text
from transformer.data.text.spans import OBJECTIVES, DenoisingWindows, noise_counts, raw_length
from transformer.data.tokenizers.choosing import TokenizerChoice, require_tokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.data.tokenizers.sentences import SentinelTokenizer
from transformer.decoding.translate import Beam, translate
from transformer.errors import ConfigError, DataError
from transformer.files import write_text
from transformer.limits import AtLeastOne, OneOf, Part, Whole
from transformer.ops.losses import IGNORED
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.losses import LogitChunks, sequence_losses
from transformer.tasks.parts.models import SequenceToSequence
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.texts import TextFiles
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.types import Batch, Json, Params

# The number of windows shown after training.
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Spans:
    """Which tokens of a text are predicted from which.

    Attributes:
        objective: `span_corruption`, or `prefix`: the text is cut in two, and the second part is
            predicted from the first.
        length: the number of tokens of a source, its end included.
        density: the fraction of tokens that are hidden.
        mean_span: the mean number of tokens in a hidden span.
    """

    objective: Annotated[str, OneOf(OBJECTIVES)] = "span_corruption"
    length: Annotated[int, Whole(4, 1 << 24)] = 128
    density: Part = 0.15
    mean_span: AtLeastOne = 3.0

    @property
    def window(self) -> int:
        """The number of tokens of the text from which one source and its target are made."""
        if self.objective == "prefix":
            return self.length
        return raw_length(self.length, self.density, self.mean_span)

    @property
    def num_sentinels(self) -> int:
        """The number of tokens that stand for hidden spans."""
        if self.objective == "prefix":
            return 0
        return noise_counts(self.window, self.density, self.mean_span)[1]

    def windows(
        self, tokens: np.ndarray, tokenizer: SentinelTokenizer, *, moving: bool
    ) -> DenoisingWindows:
        """The windows of a token stream; `moving` as in `DenoisingWindows`."""
        return DenoisingWindows(
            tokens,
            self.window,
            self.objective,
            first_sentinel=tokenizer.first_sentinel,
            end=tokenizer.end,
            density=self.density,
            mean_span=self.mean_span,
            moving=moving,
        )


_TEXTS, _TOKENIZER = TextFiles(), TokenizerChoice("bpe", size=4096)
_SPANS, _ROWS, _CHUNKS = Spans(), FixedRows(32), LogitChunks()


@dataclasses.dataclass(frozen=True, eq=False)
class StreamData:
    """Two token streams and the tokenizer that made them.

    Attributes:
        tokenizer: the tokenizer of both, sentinels included.
        train: the tokens to train on.
        validation: the tokens to validate on.
        spans: which of them are predicted from which.
        rows: the windows of a batch.
    """

    tokenizer: SentinelTokenizer
    train: np.ndarray
    validation: np.ndarray
    spans: Spans
    rows: FixedRows

    def describe(self) -> str:
        """Sizes, and the lengths of the source and target of a window."""
        source, target = self._windows().lengths
        return (
            f"{len(self.train):,} tokens to train on, {len(self.validation):,} to validate on, "
            f"{self.tokenizer.vocab_size:,} in the vocabulary, {self.spans.num_sentinels} of them "
            f"sentinels.\nWindows of {self.spans.window} tokens become sources of {source} and "
            f"targets of {target}."
        )

    def save(self, workdir: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save(workdir)

    def dimensions(self) -> dict[str, int]:
        """The vocabulary and the sentinels."""
        return {"vocab_size": self.tokenizer.vocab_size}

    def fingerprint(self) -> str:
        """Changes with the tokenizer and both token streams."""
        digest = hashlib.sha256(self.train.tobytes() + self.validation.tobytes()).hexdigest()
        return f"{tokenizer_digest(self.tokenizer)}-{digest[:32]}"

    def pace(self) -> Pace:
        """Examples are windows; tokens are those of the text."""
        return self.rows.pace(len(self._windows()), self.spans.window)

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """The arrays of `data.text.spans.DenoisingWindows` for each step."""
        return self.rows.train_batches(self._windows(), seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        """Every window of the validation text once, always with the same spans."""
        windows = self.spans.windows(self.validation, self.tokenizer, moving=False)
        return self.rows.validation_batches(windows)

    def _windows(self) -> DenoisingWindows:
        return self.spans.windows(self.train, self.tokenizer, moving=True)


@dataclasses.dataclass(frozen=True)
class Denoising:
    """Span corruption or prefix language modelling; its fields are `config.task`.

    Raffel et al. 2020, sections 3.1.4 and 3.3.1.

    Attributes:
        texts: which texts are read.
        path: a UTF-8 text file, whose lines are tokenized one by one; empty for a text that needs
            no file.
        embedded: a text that needs no file: `plays` are Shakespeare's, whole plays held out;
            `docstrings` are those of Python's standard library, whole modules held out as by the
            pairs `summaries` of the task `text_to_text` with the same `validation_fraction`;
            `purposes` are the texts of those pairs, whole packages held out.
        validation_fraction: the fraction of `path`, or of the modules, for validation.
        tokenizer: the tokenizer of the text; sentinels are added to it.
        spans: which tokens are predicted from which.
        rows: the windows of a batch.
        chunks: how many logits are held at once.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = SequenceToSequence

    texts: Annotated[TextFiles, FLAT] = _TEXTS
    tokenizer: TokenizerChoice = _TOKENIZER
    spans: Annotated[Spans, FLAT] = _SPANS
    rows: Annotated[FixedRows, FLAT] = _ROWS
    chunks: Annotated[LogitChunks, FLAT] = _CHUNKS

    def load(self, workdir: Path | None) -> StreamData:
        """Reads the text, makes or loads the tokenizer, and tokenizes."""
        train, validation = self.texts.read()
        tokenizer = self.tokenizer.of_run(
            SentenceTokenizer, workdir, _lines(train), _lines(validation)
        )
        return self._data(
            tokenizer,
            _stream(tokenizer, train, "the training text"),
            _stream(tokenizer, validation, "the validation text"),
        )

    def load_validation(self, paths: Sequence[str], workdir: Path) -> StreamData:
        """Another text to validate on, with the tokenizer of a run."""
        if len(paths) != 1:
            raise ConfigError("spans are hidden in one text file: give --path.")
        tokenizer = self.load_tokenizer(workdir)
        tokens = _stream(tokenizer, read_text(paths[0]), paths[0])
        return self._data(tokenizer, tokens, tokens)

    def _data(
        self, tokenizer: SentenceTokenizer, train: np.ndarray, validation: np.ndarray
    ) -> StreamData:
        with_sentinels = SentinelTokenizer(tokenizer, self.spans.num_sentinels)
        return StreamData(with_sentinels, train, validation, self.spans, self.rows)

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run, without sentinels."""
        return require_tokenizer(SentenceTokenizer, workdir)

    def check_model(self, model: SequenceToSequence) -> None:
        """All encoder-decoders can do the job."""

    def example_inputs(self, model: SequenceToSequence) -> tuple[Int[Array, "1 T"], ...]:
        """One source and one target."""
        tokens = jnp.zeros((1, self.spans.length), jnp.int32)
        return tokens, tokens

    def losses(
        self, model: SequenceToSequence, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every token of the target."""
        return sequence_losses(model, params, batch, rngs, self.chunks.vocab_chunk)

    def scores(self, model: SequenceToSequence, params: Params, data: StreamData) -> Json:
        """No scores besides the loss."""
        return {}

    def show(
        self, model: SequenceToSequence, params: Params, data: StreamData, workdir: Path
    ) -> Shown:
        """Shows some validation windows with the model's fillings; also in `fillings.txt`."""
        batch = data.validation_batches()[0]
        rows = [row for row in range(_SHOWN) if batch["source_segments"][row : row + 1].any()]
        sources = [batch["source"][row][batch["source_segments"][row] > 0][:-1] for row in rows]
        labels = [batch["labels"][row][batch["labels"][row] != IGNORED][:-1] for row in rows]
        beam = Beam(size=1, max_length=max(map(len, labels)))
        found = translate(model, params, data.tokenizer, sources, beam)
        lines = []
        for source, label, outputs in zip(sources, labels, found, strict=True):
            text = outputs[0].text if outputs else ""
            lines += [
                data.tokenizer.decode(source),
                f"  -> {text}",
                f"  was {data.tokenizer.decode(label)}",
            ]
        write_text(workdir / "fillings.txt", "\n".join(lines) + "\n")
        return Shown("\n".join(lines), {})


def _lines(text: str) -> list[str]:
    """Splits a text into lines, only at line feeds, which are kept: they are tokens too."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _stream(tokenizer: SentenceTokenizer, text: str, name: str) -> np.ndarray:
    """The tokens of a text; each line is tokenized separately, as in other tasks.

    Raises:
        DataError: if it is empty, naming it.
    """
    lines = _lines(text)
    if not lines:
        raise DataError(
            f"{name} is empty: give a longer one, or a larger --config.task.validation_fraction."
        )
    return np.concatenate(tokenizer.encode_all(lines))
