"""Recordings of any length written down by a model that reads windows of 30 seconds.

Windows of several recordings are read together. The memory that this takes does not depend on how
long the recordings are.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from transformer.data.audio.features import LogMel
from transformer.data.audio.prompts import Marks, Prompt
from transformer.data.audio.transcripts import Transcript
from transformer.data.audio.windows import (
    Attempt,
    Windows,
    compression,
    parts_of,
    segment_of,
    text_of,
    words_in,
)
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding import beam, prompted
from transformer.decoding.listening import Listening, Opener, features_of
from transformer.decoding.prompted import Prompts, Written
from transformer.decoding.rows import encoded
from transformer.decoding.word_times import Line, token_ends, usual_heads
from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.ops.search_rules import Search
from transformer.ops.threefry import without_loop
from transformer.types import Params

# Text before a window is not told if the window was written at a higher temperature than this.
_HOTTEST_TOLD = 0.5


@runtime_checkable
class Listener(Protocol):
    """What windows need of an encoder-decoder.

    Attributes:
        vocab_size: V.
        source_context: the vectors of a window.
        context: the most tokens that the decoder reads.
        num_decoder_layers: layers of the decoder.
        num_heads: heads of each of them.
    """

    vocab_size: int
    source_context: int
    context: int
    num_decoder_layers: int
    num_heads: int

    @property
    def source_stride(self) -> int:
        """How many frames share a vector."""
        ...


@dataclasses.dataclass(frozen=True)
class Dictation:
    """What is needed to write recordings down.

    Attributes:
        model: an encoder-decoder that is a `Listener`.
        params: its parameters.
        tokenizer: of the model.
        marks: of the tokenizer.
        features: how samples become frames.
        prompt: what is asked for.
        windows: how windows are written.
        batch_size: windows that are written at once.
        seed: of the random numbers at temperatures above 0.
    """

    model: AnyEncoderDecoder
    params: Params
    tokenizer: SentenceTokenizer
    marks: Marks
    features: LogMel
    prompt: Prompt
    windows: Windows
    batch_size: int = 8
    seed: int = 0

    def transcripts(
        self,
        recordings: Iterable[tuple[str, Opener]],
        on_progress: Callable[[float], None] = lambda seconds: None,
    ) -> Iterator[Transcript]:
        """The transcript of each recording, in their order.

        Args:
            recordings: their names, and how to open them.
            on_progress: called with the seconds that are written down, of all recordings together.

        Raises:
            DataError: if a recording cannot be read.
        """
        waiting, active = iter(enumerate(recordings)), []
        finished: dict[int, Transcript] = {}
        next_one, seconds, is_more = 0, 0.0, True
        with contextlib.ExitStack() as stack:
            while is_more or active:
                while is_more and len(active) < self.batch_size:
                    found = next(waiting, None)
                    is_more = found is not None
                    if found is not None:
                        active.append(self._opened(*found, stack))
                if active:
                    before = sum(one.seconds_done for one in active)
                    self._write(active)
                    seconds += sum(one.seconds_done for one in active) - before
                    on_progress(seconds)
                finished |= {one.index: one.transcript() for one in active if one.is_done}
                active = [one for one in active if not one.is_done]
                while next_one in finished:
                    yield finished.pop(next_one)
                    next_one += 1

    def _opened(
        self, index: int, recording: tuple[str, Opener], stack: contextlib.ExitStack
    ) -> Listening:
        listener = self._listener
        size = listener.source_context * listener.source_stride
        one = Listening(index, *recording, self.features, size)
        one.open(stack)
        one.language = self.prompt.language
        if self.windows.initial_text.strip():
            one.history += self.tokenizer.encode(f" {self.windows.initial_text.strip()}").tolist()
        return one

    @property
    def _listener(self) -> Listener:
        return cast("Listener", self.model)

    def _write(self, active: Sequence[Listening]) -> None:
        """Writes the next window of each recording."""
        rows = [one.frames() for one in active]
        rows += [rows[0]._replace(valid=0)] * (self.batch_size - len(rows))
        memory = _memory(
            self.model,
            self.params,
            self.features,
            np.stack([row.samples for row in rows]),
            np.array([row.valid for row in rows], np.int32),
            np.array([row.loudest for row in rows], np.float32),
        )
        if self.prompt.multilingual and not all(one.language for one in active):
            for one, code in zip(active, self._languages(memory), strict=False):
                one.language = one.language or code
        for times in (False, True):
            # Windows with times and without follow other rules, and are written by other programs.
            places = [row for row, one in enumerate(active) if self._has_times(one) == times]
            if places:
                attempts = self._attempts(active, memory, places, times)
                ends = self._token_ends(active, memory, attempts, times)
                for row, attempt in attempts.items():
                    self._take(active[row], attempt, ends.get(row))

    def _has_times(self, one: Listening) -> bool:
        return self.windows.timestamps or not one.is_short

    def _languages(self, memory: Float[Array, "B R D"]) -> list[str]:
        """The most probable language of each window."""
        begins = np.full((len(memory), 1), self.marks.start, np.int32)
        prompts = Prompts(begins, np.ones(len(memory), np.int32))
        logits = np.asarray(prompted.following(self.model, self.params, memory, prompts))
        codes = list(self.marks.languages)
        best = np.argmax(logits[:, [self.marks.languages[code] for code in codes]], axis=1)
        return [codes[index] for index in best]

    def _attempts(
        self,
        active: Sequence[Listening],
        memory: Float[Array, "B R D"],
        places: Sequence[int],
        times: bool,
    ) -> dict[int, Attempt]:
        """By row, the first attempt at a window that is not wrong, or else the last one."""
        prompts, found = self._prompts(active, times), {}
        seeds = np.zeros((self.batch_size, 2), np.uint32)
        seeds[: len(active)] = [(one.index, one.place) for one in active]
        keys = _keys(np.uint32(self.seed), seeds)
        for temperature in self.windows.temperatures:
            written = self._written(memory, prompts, places, temperature, keys, times)
            for row in places:
                found[row] = self._attempt(written, row, temperature)
            places = [row for row in places if found[row].is_wrong(self.windows)]
            if not places:
                break
        return found

    def _opening(self, one: Listening, times: bool) -> tuple[int, ...]:
        return self.prompt.opening(self.marks, one.language, times=times)

    def _num_opening(self, times: bool) -> int:
        """How many tokens say what to write."""
        any_language = next(iter(self.marks.languages), "")
        return len(self.prompt.opening(self.marks, any_language, times=times))

    @property
    def _most_told(self) -> int:
        """How many tokens of what was said before a window is told."""
        return self._listener.context // 2 - 1

    def _front(self, one: Listening, times: bool) -> tuple[int, ...]:
        """What stands in front of the text of a window."""
        told = (self.marks.previous, *one.history[-self._most_told :]) if one.history else ()
        return (*told, *self._opening(one, times))

    def _prompts(self, active: Sequence[Listening], times: bool) -> Prompts:
        """The same for each window; of two widths only."""
        texts = [self._front(one, times) for one in active]
        width = self._num_opening(times)
        if any(one.history for one in active):
            width += 1 + self._most_told
        tokens = np.full((self.batch_size, width), self.marks.end, np.int32)
        for row, text in zip(tokens, texts, strict=False):
            row[width - len(text) :] = text
        lengths = [len(text) for text in texts] + [1] * (self.batch_size - len(texts))
        return Prompts(tokens, np.array(lengths, np.int32))

    def _written(
        self,
        memory: Float[Array, "B R D"],
        prompts: Prompts,
        places: Sequence[int],
        temperature: float,
        keys: Key[Array, "B"],
        times: bool,
    ) -> Written:
        """The outputs of some rows at a temperature; nothing for the others."""
        opening = self._num_opening(times)
        longest = self._listener.context - opening
        if self.windows.max_new_tokens:
            longest = min(longest, self.windows.max_new_tokens)
        limits = np.zeros(self.batch_size, np.int32)
        room = self._listener.context - np.asarray(prompts.lengths)
        limits[places] = np.minimum(room, longest)[places]
        if temperature == 0.0 and self.windows.beam_size > 1:
            return self._searched(memory, prompts, limits, longest, times)
        settings = prompted.Settings(
            end=self.marks.end,
            max_length=longest,
            rules=self.windows.rules(self.marks, times=times),
            drawn=temperature > 0.0,
            watched=(self.marks.no_speech, opening),
        )
        heat = np.float32(temperature)
        return jax.device_get(
            prompted.write(self.model, self.params, memory, prompts, limits, heat, keys, settings)
        )

    def _searched(
        self,
        memory: Float[Array, "B R D"],
        prompts: Prompts,
        limits: Int[np.ndarray, "B"],
        longest: int,
        times: bool,
    ) -> Written:
        """The same by beam search, as the library `transformers` does it."""
        settings = beam.Settings(
            end=self.marks.end,
            num_tokens=self._listener.vocab_size,
            max_length=longest,
            beam_size=self.windows.beam_size,
            alpha=self.windows.length_penalty,
            num_return=1,
            search=Search(kind="transformers", early_stopping="false"),
            transcript=self.windows.rules(self.marks, times=times),
        )
        lengths = np.where(limits > 0, self._listener.source_context, 0).astype(np.int32)
        found = beam.search_memory(
            self.model, self.params, memory, lengths, limits, settings, prompts
        )
        logits = prompted.following(
            self.model, self.params, memory, prompts, self._num_opening(times)
        )
        silent = jax.nn.softmax(logits)[:, self.marks.no_speech]
        tokens, lengths, log_probs, _ = (each[:, 0] for each in found)
        return jax.device_get(Written(tokens, lengths, log_probs, silent))

    def _attempt(self, written: Written, row: int, temperature: float) -> Attempt:
        """The output of one row."""
        length = int(written.lengths[row])
        ids = [int(token) for token in written.tokens[row, :length]]
        has_end = bool(ids) and ids[-1] == self.marks.end
        if has_end:
            ids.pop()
        return Attempt(
            tokens=tuple(ids),
            log_prob=float(written.log_probs[row]) / max(1, length),
            no_speech=float(written.watched[row]),
            temperature=temperature,
            compression=compression(text_of(ids, self.tokenizer, self.marks).strip()),
            has_end=has_end,
        )

    def _token_ends(
        self,
        active: Sequence[Listening],
        memory: Float[Array, "B R D"],
        attempts: Mapping[int, Attempt],
        times: bool,
    ) -> dict[int, np.ndarray]:
        """By row, when each token of a window ends; nothing if words get no times."""
        if not self.windows.word_times:
            return {}
        listener, lines = self._listener, {}
        for row, attempt in attempts.items():
            one = active[row]
            heard = one.num_left // listener.source_stride
            front = self._front(one, times)
            lines[row] = Line(front, attempt.tokens, attempt.has_end, heard)
        heads = self.windows.alignment_heads
        heads = heads or usual_heads(listener.num_decoder_layers, listener.num_heads)
        width = self.windows.median_width
        return token_ends(self.model, self.params, memory, lines, listener.context, heads, width)

    def _take(self, one: Listening, attempt: Attempt, ends: np.ndarray | None) -> None:
        """Adds what a window says to its recording, and moves on to the next window."""
        num_left, stride = one.num_left, self._listener.source_stride
        if attempt.is_silent(self.windows):
            one.place += num_left
            return
        begin = one.place * self.features.seconds_per_frame
        parts, offset = parts_of(attempt.tokens, self.marks, num_left, stride)
        first = 0
        for part in parts:
            segment = segment_of(part, begin, attempt, self.tokenizer, self.marks)
            if ends is not None:
                words = words_in(part, first, ends, begin, self.tokenizer, self.marks, one.language)
                segment = segment._replace(words=words)
            first += len(part.tokens)
            if segment.text.strip():
                one.segments.append(segment)
        one.place += offset
        one.history += [token for part in parts for token in part.tokens]
        if not self.windows.condition or attempt.temperature > _HOTTEST_TOLD:
            one.history.clear()


@functools.partial(jax.jit, static_argnums=(0, 2))
def _memory(
    model: AnyEncoderDecoder,
    params: Params,
    features: LogMel,
    samples: Float[Array, "B n"],
    valid: Int[Array, "B"],
    loudest: Float[Array, "B"],
) -> Float[Array, "B R D"]:
    """What the encoder makes of windows."""
    heard = features_of(features, samples, valid, loudest)
    return encoded(model, params, heard)


@jax.jit
def _keys(seed: UInt32[Array, ""], numbers: UInt32[Array, "B n"]) -> Key[Array, "B"]:
    """Random keys, each for some numbers, so that rows do not depend on their batch."""
    key = without_loop(jax.random.key(seed))

    def of_row(row: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, row[0]), row[1])

    return jax.vmap(of_row)(numbers)
