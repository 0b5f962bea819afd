"""Sentences in, sentences out: translation line by line, and the scores of given translations."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.data.order import make_buckets
from transformer.data.pairs.batches import lay_out
from transformer.data.pairs.files import TokenPairs
from transformer.data.reading.text import in_chunks
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.beam import Hypotheses, Settings, beam_search
from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError
from transformer.nn.encoder_decoder import EncoderDecoder
from transformer.ops.losses import cross_entropy
from transformer.ops.search_rules import USUAL, Search
from transformer.progress import counting
from transformer.types import Batch, Params


@dataclasses.dataclass(frozen=True)
class Beam:
    """How to search.

    Attributes:
        size: hypotheses kept at each step; 1 is greedy.
        length_penalty: see `search_rules.length_penalty`.
        num_return: outputs for each sentence, best first, all different texts: of several token
            sequences with the same text only the most probable is kept. There are fewer if the
            beams hold fewer.
        extra_length: an output has at most this many tokens more than its source (Vaswani et al.
            2017, section 6.1).
        max_length: the longest output in tokens, without the end; None uses `extra_length`.
        batch_tokens: the number of source tokens times beams that are searched at once.
        search: further rules.
    """

    size: int = 4
    length_penalty: float = 0.6
    num_return: int = 1
    extra_length: int = 50
    max_length: int | None = None
    batch_tokens: int = 8192
    search: Search = USUAL

    def __post_init__(self) -> None:
        self.search.check_penalty(self.length_penalty, "the length penalty")
        if self.num_return > self.size:
            raise ConfigError(
                f"{self.num_return} outputs are more than the {self.size} beams that are searched: "
                f"give a larger beam size."
            )


class Output(NamedTuple):
    """One output of a sentence.

    Attributes:
        text: the output.
        ids: its tokens, without the end token.
        log_prob: the log probability of the output and its end, in nats.
        score: the log probability after the length penalty.
    """

    text: str
    ids: np.ndarray
    log_prob: float
    score: float


def best_texts(found: Sequence[Sequence[Output]]) -> list[str]:
    """The text of the best output of each row; empty where there is none."""
    return [outputs[0].text if outputs else "" for outputs in found]


def translate(
    model: EncoderDecoder,
    params: Params,
    tokenizer: SentenceTokenizer,
    sources: Sequence[np.ndarray],
    beam: Beam,
    on_progress: Callable[[int], None] = lambda count: None,
) -> list[list[Output]]:
    """The best outputs of each sentence, in the order of the sentences.

    Args:
        model: an encoder-decoder; see `beam.beam_search`.
        params: its parameters.
        tokenizer: the model's tokenizer.
        sources: token ids without end token; an empty one gives one empty output.
        beam: how to search.
        on_progress: called with the number of sentences that are done.
    """
    results: list[list[Output]] = [[] for _ in sources]
    for index, ids in enumerate(sources):
        if len(ids) == 0:
            results[index] = [Output("", ids, 0.0, 0.0)]
    filled = [index for index, ids in enumerate(sources) if len(ids)]
    done = len(sources) - len(filled)
    on_progress(done)
    if not filled:
        return results
    lengths = np.array([len(sources[index]) + 1 for index in filled])
    for members, rows, length in _groups(lengths, max(1, beam.batch_tokens // beam.size)):
        batch = [filled[member] for member in members]
        found = _search(
            model, params, tokenizer, [sources[index] for index in batch], rows, length, beam
        )
        for index, outputs in zip(batch, found, strict=True):
            results[index] = outputs
        done += len(batch)
        on_progress(done)
    return results


def _groups(lengths: np.ndarray, batch_tokens: int) -> Iterator[tuple[list[int], int, int]]:
    """Groups sentences of similar length: yields their indices, and the shape of their batch.

    There is one shape for each length, with not more rows than sentences.
    """
    longest = rounded_up(int(lengths.max()), least=8)
    buckets = make_buckets(lengths, batch_tokens=batch_tokens, longest=longest, rows_multiple=1)
    buckets_of = np.searchsorted([bucket.length for bucket in buckets], lengths)
    for index, bucket in enumerate(buckets):
        members = np.flatnonzero(buckets_of == index).tolist()
        rows = rounded_up(len(members), bucket.rows, least=1)
        for first in range(0, len(members), rows):
            yield members[first : first + rows], rows, bucket.length


def translate_stream(
    model: EncoderDecoder,
    params: Params,
    tokenizer: SentenceTokenizer,
    lines: Iterable[str],
    beam: Beam,
    *,
    encode: Callable[[Sequence[str], int], tuple[list[np.ndarray], int]],
    lines_at_once: int,
    progress: bool = True,
    when_cut: str = "were too long and were cut.",
) -> Iterator[list[Output]]:
    """Translates lines in their order, some at a time, with a live count on stderr.

    Lines are answered as soon as no more are waiting; see `data.text.IncomingLines`.

    Args:
        model: an encoder-decoder.
        params: its parameters.
        tokenizer: of the model.
        lines: any number of lines; empty ones give empty outputs.
        beam: how to search.
        encode: maps lines and the number of the first line to token ids and the number of lines
            cut.
        lines_at_once: the most lines that are translated together; more is faster.
        progress: whether the count is shown, if stderr is a terminal.
        when_cut: the message at the end about cut sentences, printed after their number.
    """
    first = cut = 0
    with counting(None, "translated", "sentences", shown=progress) as update:
        for chunk in in_chunks(lines, lines_at_once):
            sources, too_long = encode(chunk, first)
            cut += too_long

            def on_progress(done: int, before: int = first) -> None:
                update(before + done)

            yield from translate(model, params, tokenizer, sources, beam, on_progress)
            first += len(chunk)
    if cut:
        print(f"{cut:,} of {first:,} sentences {when_cut}", file=sys.stderr)


def _search(
    model: EncoderDecoder,
    params: Params,
    tokenizer: SentenceTokenizer,
    sources: Sequence[np.ndarray],
    rows: int,
    length: int,
    beam: Beam,
) -> list[list[Output]]:
    """Searches one batch, filled up with empty rows."""
    padded = np.zeros((rows, length), np.int32)
    lengths = np.zeros(rows, np.int32)
    for row, ids in enumerate(sources):
        padded[row, : len(ids)] = ids
        padded[row, len(ids)] = tokenizer.end
        lengths[row] = len(ids) + 1
    found = _hypotheses(model, params, tokenizer, padded, lengths, beam)
    return [_outputs(tokenizer, found, row, beam) for row in range(len(sources))]


def _outputs(tokenizer: SentenceTokenizer, found: Hypotheses, row: int, beam: Beam) -> list[Output]:
    """The outputs of a row, best first, without repeated texts."""
    ends = (tokenizer.end, *beam.search.more_ends)
    outputs: dict[str, Output] = {}
    for rank in range(found.lengths.shape[1]):
        if found.lengths[row, rank] == 0 or len(outputs) == beam.num_return:
            break
        ids = found.tokens[row, rank, : found.lengths[row, rank]]
        ids = ids[:-1] if ids[-1] in ends else ids
        text = tokenizer.decode(ids)
        numbers = float(found.log_probs[row, rank]), float(found.scores[row, rank])
        outputs.setdefault(text, Output(text, ids, *numbers))
    return list(outputs.values())


def _hypotheses(
    model: EncoderDecoder,
    params: Params,
    tokenizer: SentenceTokenizer,
    source: np.ndarray,
    lengths: np.ndarray,
    beam: Beam,
) -> Hypotheses:
    """The hypotheses that the search finds, in the host's memory."""
    foreign = beam.search.kind == "transformers"
    limits = lengths + beam.extra_length
    usual = longest = source.shape[1] + beam.extra_length
    if beam.max_length is not None:
        # Outputs without an end at their limit need no room for one.
        longest = beam.max_length + (not foreign)
        limits = np.full(len(lengths), longest, np.int32)
    settings = Settings(
        end=tokenizer.end,
        num_tokens=model.vocab_size if foreign else tokenizer.vocab_size,
        # Each step attends to all slots, and most outputs need only a few.
        max_length=min(longest, usual),
        beam_size=beam.size,
        alpha=beam.length_penalty,
        # Several hypotheses may have the same text.
        num_return=1 if beam.num_return == 1 else beam.size,
        begin=model.begin_token(),
        unwritten=() if foreign else model.unwritten_tokens(),
        search=beam.search,
    )
    found = jax.device_get(beam_search(model, params, source, lengths, limits, settings))
    if longest > usual and (found.lengths[lengths > 0, 0] == 0).any():
        settings = dataclasses.replace(settings, max_length=longest)
        found = jax.device_get(beam_search(model, params, source, lengths, limits, settings))
    return found


def score_pairs(
    model: EncoderDecoder, params: Params, pairs: TokenPairs, *, batch_tokens: int = 4096
) -> tuple[Float[np.ndarray, "E"], Int[np.ndarray, "E"]]:
    """The log probability of each target given its source, and how many tokens it has.

    Both count the end token.

    Args:
        model: an encoder-decoder.
        params: its parameters.
        pairs: E pairs, at least one.
        batch_tokens: tokens scored at once.
    """
    log_probs = np.zeros(len(pairs.source))
    for members, rows, length in _groups(pairs.lengths, batch_tokens):
        batch = lay_out(pairs, [[pair] for pair in members], rows, length)
        log_probs[members] = _log_probs(model, params, batch)[: len(members)]
    return log_probs, pairs.target.lengths


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(model: EncoderDecoder, params: Params, batch: Batch) -> Float[Array, "B"]:
    def run(module: EncoderDecoder) -> Array:
        labels = batch["labels"]
        inputs = {name: batch[name] for name in ("source_segments", "target_segments")}
        target = module.begun(batch["target"], batch["target_segments"])
        logits = module(batch["source"], target, **inputs)
        return -jnp.sum(cross_entropy(logits, labels).nll, axis=-1)

    return nn.apply(run, model)({"params": params})
