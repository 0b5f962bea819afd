"""Speech to text."""

import dataclasses
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import numpy as np
from jaxtyping import Array

from transformer.composition import FLAT
from transformer.data.audio.augmentation import Augmentation
from transformer.data.audio.prompts import require_marks
from transformer.data.audio.transcripts import Transcript
from transformer.data.audio.windows import Windows
from transformer.data.source import Visit
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.recognize import Found, Recognition
from transformer.errors import ConfigError, DataError
from transformer.files import write_text
from transformer.limits import OneOf, Share
from transformer.progress import counting
from transformer.scoring.recognition import recognition_scores, require_jiwer
from transformer.tasks.parts.beams import BeamSearch
from transformer.tasks.parts.dictating import write_pieces, write_windows
from transformer.tasks.parts.losses import LogitChunks
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.recognition import draw_example, recognized
from transformer.tasks.parts.recording_files import RecordingFiles, SpeechData
from transformer.tasks.parts.speech import SpeechAligner, SpeechReader, SpeechWriter
from transformer.tasks.parts.speech_losses import recognition_losses
from transformer.tasks.parts.transcribing import Asked
from transformer.traced import RateOrOff
from transformer.types import Batch, Json, Params

_RECORDINGS, _WINDOWS = RecordingFiles(), Windows()
_BEAMS, _CHUNKS = BeamSearch(beam_size=8, length_penalty=0.0), LogitChunks()
# How the text of a recording is found.
DECODINGS = ("joint", "ctc", "attention", "windows")
# Of these, the ones that need no CTC.
_WITHOUT_CTC = ("attention", "windows")


@dataclasses.dataclass(frozen=True)
class Transcription:
    """Recordings to text; its fields are `config.task`.

    Attributes:
        recordings: which recordings are read, and how they are heard.
        ctc_weight: the weight of CTC in the loss and in the search; attention has the rest.
        label_smoothing: of the attention loss; see `ops.losses.cross_entropy`.
        chunks: how many logits are held at once.
        decoding: `joint` takes the best outputs of CTC and scores them with both; `ctc` with CTC
            alone; `attention` searches with attention alone; `windows` does so with the rules of
            models like Whisper, which read recordings of any length window by window.
        beams: the search; the penalty and the rules are of attention.
        windows: how recordings are written down window by window.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size", "num_features")
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_features",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = SpeechReader

    recordings: Annotated[RecordingFiles, FLAT] = _RECORDINGS
    ctc_weight: Share = 0.3
    label_smoothing: RateOrOff = 0.1
    chunks: Annotated[LogitChunks, FLAT] = _CHUNKS
    decoding: Annotated[str, OneOf(DECODINGS)] = "joint"
    beams: Annotated[BeamSearch, FLAT] = _BEAMS
    windows: Windows = _WINDOWS

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.decoding not in _WITHOUT_CTC and self.ctc_weight == 0.0:
            raise ConfigError(
                f"config.task.decoding is {self.decoding!r}, and config.task.ctc_weight 0.0 trains "
                f"no CTC: give decoding=attention."
            )
        if self.decoding != "ctc" and self.ctc_weight == 1.0:
            raise ConfigError(
                f"config.task.decoding is {self.decoding!r}, and config.task.ctc_weight 1.0 trains "
                f"no decoder: give decoding=ctc."
            )

    def load(self, workdir: Path | None) -> SpeechData:
        """Reads the recordings, and refuses early if outputs cannot be scored."""
        require_jiwer()
        return self.recordings.load(workdir)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> SpeechData:
        """Other recordings to validate on, with the tokenizer of a run."""
        return self.recordings.load_validation(paths, workdir)

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run."""
        return self.recordings.load_tokenizer(workdir)

    def example_inputs(self, model: SpeechReader) -> tuple[Array, ...]:
        """The frames of a short recording, and one token for models that write."""
        return self.recordings.example_inputs(model)

    def check_model(self, model: SpeechReader) -> None:
        """Refuses a model without the outputs that the loss and the search need."""
        for needed, kind, what in (
            (self.ctc_weight > 0, SpeechAligner, "output layer for CTC: give ctc_weight=0.0 and "),
            (self.ctc_weight < 1, SpeechWriter, "decoder: give ctc_weight=1.0 and "),
        ):
            if needed and not isinstance(model, kind):
                decoding = "attention" if kind is SpeechAligner else "ctc"
                raise ConfigError(
                    f"config.task.ctc_weight is {self.ctc_weight}, and config.model has no "
                    f"{what}decoding={decoding}."
                )

    def losses(
        self, model: SpeechReader, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of the transcript's tokens, and CTC.

        Raises:
            DataError: if the recordings are not such as the model reads.
        """
        heard = self.recordings.heard(batch)
        if heard.frames.shape[2] != model.num_features:
            raise DataError(
                f"the recordings give frames of {heard.frames.shape[2]} numbers, and the model "
                f"reads {model.num_features}: give recordings like those that it was trained on."
            )
        return recognition_losses(
            model,
            params,
            heard,
            rngs,
            ctc_weight=self.ctc_weight,
            label_smoothing=self.label_smoothing,
            vocab_chunk=self.chunks.vocab_chunk,
        )

    # ----------------------------------------------------------------------------- scores

    def recognition(self, tokenizer: SentenceTokenizer) -> Recognition:
        """How the text of a short recording is found."""
        prompt = self.recordings.prompt.tokens(tokenizer).tolist()
        windows = self.decoding == "windows"
        return Recognition(
            end=tokenizer.end,
            num_tokens=tokenizer.vocab_size,
            max_length=self.recordings.max_length - len(prompt),
            kind="attention" if windows else self.decoding,
            size=self.windows.beam_size if windows else self.beams.beam_size,
            prompt=tuple(prompt),
            transcript=self.windows.rules(require_marks(tokenizer), times=False)
            if windows
            else None,
            ctc_weight=self.ctc_weight,
            length_penalty=self.beams.length_penalty,
            search=self.beams.search,
        )

    def transcribe(
        self,
        model: SpeechReader,
        params: Params,
        workdir: Path,
        recordings: Sequence[Path],
        asked: Asked,
        on_progress: Callable[[float], None],
    ) -> Iterator[Transcript]:
        """The transcript of each recording."""
        write = write_windows if self.decoding == "windows" else write_pieces
        tokenizer = self.load_tokenizer(workdir)
        return write(self, model, params, tokenizer, recordings, asked, on_progress)

    def _found(self, model: SpeechReader, params: Params, data: SpeechData) -> list[Found]:
        how, batches = self.recognition(data.tokenizer), data.validation_batches()
        count = len(data.validation.recordings)
        with counting(count, "transcribed", "recordings") as update:
            return recognized(model, params, batches, self.recordings.heard, how, update)

    def scores(self, model: SpeechReader, params: Params, data: SpeechData) -> Json:
        """Errors in words and characters."""
        found = self._found(model, params, data)
        texts = [data.tokenizer.decode(one.ids) for one in found]
        return recognition_scores(texts, data.validation.recordings.transcripts)

    def show(self, model: SpeechReader, params: Params, data: SpeechData, workdir: Path) -> Shown:
        """Shows scores and some transcripts, writes all of them, and draws how one was found."""
        found, recordings = self._found(model, params, data), data.validation.recordings
        texts, references = (
            [data.tokenizer.decode(one.ids) for one in found],
            recordings.transcripts,
        )
        scores = recognition_scores(texts, references)
        rows = [
            ("recording", "reference", "output"),
            *zip(recordings.names, references, texts, strict=True),
        ]
        lines = ("\t".join(re.sub(r"[\t\n]", " ", text) for text in row) for row in rows)
        write_text(workdir / "transcripts.tsv", "".join(f"{line}\n" for line in lines))
        # One of medium length.
        index = int(np.argsort(recordings.lengths, kind="stable")[int(0.6 * len(texts))])
        rows = self.recordings.rows(data.tokenizer, data.validation, Augmentation())
        heard = self.recordings.heard(rows.batch([Visit(index)]))
        second = self.recordings.features.seconds_per_frame
        place = workdir / "alignment.png"
        draw_example(model, params, heard, found[index].ids, data.tokenizer, second, place)
        lines = [f"{name:<24} {value:.2f}" for name, value in scores.items()]
        for index in np.linspace(0, len(texts) - 1, min(3, len(texts))).astype(int):
            lines.append(f"  {recordings.names[index]}: {textwrap.shorten(texts[index], 300)}")
            if texts[index] != references[index]:
                lines.append(f"  not {textwrap.shorten(references[index], 300)}")
        return Shown("\n".join(lines), scores)
