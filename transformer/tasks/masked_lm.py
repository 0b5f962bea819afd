"""Pretraining an encoder: predicts masked tokens, and whether a sentence follows another."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.composition import FLAT
from transformer.data.order import Batches
from transformer.data.reading.text import in_chunks, require_characters
from transformer.data.text.documents import (
    DocumentTokens,
    SentencePairs,
    tokenize_documents,
)
from transformer.data.text.masking import Masking, unigram_entropy
from transformer.data.text.rows import lay_out_texts
from transformer.data.text.sources import DOCUMENTS, documents_of, read_documents
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError, DataError
from transformer.files import write_text
from transformer.limits import OneOf, PartOrAll, PartOrNone, Share
from transformer.ops.losses import IGNORED, TokenLosses, cross_entropy, summed
from transformer.tasks.parts.abilities import Prediction
from transformer.tasks.parts.encoder import (
    INPUTS,
    EncoderInput,
    encoder_inputs,
    require_same_mask,
    too_long,
)
from transformer.tasks.parts.labels import softmax
from transformer.tasks.parts.losses import LogitChunks, vocabulary_losses
from transformer.tasks.parts.models import SentencePretrainer, TokenFiller
from transformer.tasks.parts.outputs import apply
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.tasks.parts.training_files import TrainingPath
from transformer.types import Batch, Json, Params

# The most lines that `predict` answers at once, and its answers for each masked token.
_LINES_AT_ONCE = 64
_FILLINGS = 5
_INPUTS, _CHUNKS = EncoderInput(), LogitChunks()
_FILES = TrainingPath(validation_fraction=0.05)


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedData:
    """Rows of documents to train and to validate on.

    Attributes:
        inputs: how the rows are made.
        train: rows of the training documents.
        validation: rows of the validation documents.
        entropy: the entropy in nats of the masked tokens of the validation documents; see
            `data.text.masking.unigram_entropy`.
    """

    inputs: EncoderInput
    train: SentencePairs
    validation: SentencePairs
    entropy: float

    @property
    def tokenizer(self) -> EncoderTokenizer:
        """The tokenizer of the documents."""
        return self.train.tokenizer

    def describe(self) -> str:
        """Sizes, and the loss of a model that knows only frequencies."""
        train, validation = self.train.data, self.validation.data
        return (
            f"{len(train.tokens):,} tokens in {len(train.documents) - 1:,} documents to train on, "
            f"{len(validation.tokens):,} to validate on, {self.tokenizer.vocab_size:,} in the "
            f"vocabulary.\n"
            f"Unigram entropy of the masked tokens to validate on: {self.entropy:.4f} nats."
        )

    def save(self, workdir: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save(workdir)

    def check_fit(self, model: TokenFiller) -> None:
        """Refuses a model that hides another token than the tokenizer's mask."""
        require_same_mask(model, self.tokenizer)

    def dimensions(self) -> dict[str, int]:
        """The vocabulary."""
        return {"vocab_size": self.tokenizer.vocab_size}

    def fingerprint(self) -> str:
        """Changes with the tokenizer (first part) and all documents."""
        digest = hashlib.sha256()
        for pairs in (self.train, self.validation):
            for array in pairs.data:
                digest.update(np.ascontiguousarray(array).tobytes())
        return f"{tokenizer_digest(self.tokenizer)}-{digest.hexdigest()[:32]}"

    def pace(self) -> Pace:
        """Examples are rows; almost all have T tokens."""
        return self.inputs.rows.pace(len(self.train), self.inputs.max_length)

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.inputs.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """The arrays of `data.text.documents.SentencePairs` for each step."""
        return self.inputs.rows.train_batches(self.train, seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        """Every chunk of the validation documents once, always with the same masks."""
        return self.inputs.rows.validation_batches(self.validation)


@dataclasses.dataclass(frozen=True)
class MaskedLM:
    """Masked-language-model and next-sentence pretraining; its fields are `config.task`.

    Devlin et al. 2019, section 3.1. The objective is the sum of both mean losses, in nats; `loss`
    in the metrics covers only masked tokens.

    Attributes:
        inputs: how texts become rows.
        files: the files, and what is held out of them.
        path: a UTF-8 text file, one sentence a line, a blank line between documents; or a FASTA
            file, where each protein is a document; empty for `embedded`.
        validation_path: likewise; empty takes the last documents of `path`. Needs `path`.
        embedded: documents that need no file: `plays` are Shakespeare's, whole plays held out;
            `catalogues` the strings of Django's in many languages, `peptides` sequences of
            peptides, relatives held out together.
        next_sentence: whether rows have two segments, the second of which may be random; otherwise
            rows are filled with consecutive sentences (Liu et al. 2019).
        masking_rate: the fraction of tokens that are predicted.
        validation_masking_rate: the same of the validation documents, so that runs which learn from
            more hidden tokens can be compared with others; 0 takes `masking_rate`.
        mask_fraction: the fraction of those that become the mask token.
        random_fraction: the fraction of those that become a random token; the rest stay.
        whole_words: whether all pieces of a word are predicted together.
        chunks: how many logits are held at once.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)

    inputs: Annotated[EncoderInput, FLAT] = _INPUTS
    files: Annotated[TrainingPath, FLAT] = _FILES
    embedded: Annotated[str, OneOf(DOCUMENTS)] = "plays"
    next_sentence: bool = True
    masking_rate: PartOrAll = 0.15
    validation_masking_rate: PartOrNone = 0.0
    mask_fraction: Share = 0.8
    random_fraction: Share = 0.1
    whole_words: bool = False
    chunks: Annotated[LogitChunks, FLAT] = _CHUNKS

    @property
    def entry(self) -> str:
        """The model's method for this task, depending on `next_sentence`."""
        return "pretrain" if self.next_sentence else "fill"

    @property
    def model_kind(self) -> type:
        """The protocol of models, depending on `next_sentence`."""
        return SentencePretrainer if self.next_sentence else TokenFiller

    @property
    def masking(self) -> Masking:
        """How tokens are chosen and hidden."""
        return Masking(
            self.masking_rate, self.mask_fraction, self.random_fraction, self.whole_words
        )

    def check(self) -> None:
        """Refuses values that cannot work."""
        _ = self.masking  # It has checks of its own.
        if self.mask_fraction + self.random_fraction == 0.0:
            raise ConfigError(
                "config.task.mask_fraction is 0.0 and config.task.random_fraction 0.0: nothing "
                "would be hidden, and what is predicted could be read off."
            )

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> MaskedData:
        """Reads the documents, makes or loads the tokenizer, and tokenizes."""
        files = self.files
        train, validation = read_documents(
            files.path, files.validation_path, files.validation_fraction, self.embedded
        )
        lines = (line for document in train for line in document)
        tokenizer = self.inputs.make_tokenizer(workdir, lines)
        tokens = tokenize_documents(tokenizer, train)
        return self._data(tokenizer, tokens, tokenize_documents(tokenizer, validation))

    def load_validation(self, paths: Sequence[str], workdir: Path) -> MaskedData:
        """Another text to validate on, with the tokenizer of a run."""
        if len(paths) != 1:
            raise ConfigError("masked tokens are predicted in one text file: give --path.")
        tokenizer = self.load_tokenizer(workdir)
        tokens = tokenize_documents(tokenizer, documents_of(paths[0]))
        return self._data(tokenizer, tokens, tokens)

    def _data(
        self, tokenizer: EncoderTokenizer, train: DocumentTokens, validation: DocumentTokens
    ) -> MaskedData:
        rate = self.validation_masking_rate or self.masking_rate
        held_out = self._pairs(tokenizer, validation, dataclasses.replace(self.masking, rate=rate))
        batches = self.inputs.rows.validation_batches(held_out)
        labels = [batches[step]["labels"] for step in range(len(batches))]
        entropy = unigram_entropy(np.concatenate(labels), tokenizer.vocab_size)
        pairs = self._pairs(tokenizer, train, self.masking)
        return MaskedData(self.inputs, pairs, held_out, entropy)

    def _pairs(
        self, tokenizer: EncoderTokenizer, tokens: DocumentTokens, masking: Masking
    ) -> SentencePairs:
        length = self.inputs.max_length
        return SentencePairs(tokens, tokenizer, length, masking, self.next_sentence)

    def load_tokenizer(self, workdir: Path) -> EncoderTokenizer:
        """The tokenizer of a run."""
        return self.inputs.load_tokenizer(workdir)

    def check_model(self, model: TokenFiller) -> None:
        """Refuses a model with too few positions."""
        self.inputs.check_model(model)

    def example_inputs(self, model: TokenFiller) -> tuple[Int[Array, "..."], ...]:
        """One row with one masked token."""
        return *self.inputs.example_inputs(model), jnp.zeros((1, 1), jnp.int32)

    # ------------------------------------------------------------------------------- loss

    def losses(
        self, model: TokenFiller, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of the masked tokens, and of the next sentence."""

        def score(module: TokenFiller) -> tuple[TokenLosses, TokenLosses | None]:
            features = module(*(batch[name] for name in INPUTS))
            masked = module.masked(features, batch["positions"])
            tokens = vocabulary_losses(module, masked, batch["labels"], self.chunks.vocab_chunk)
            if not self.next_sentence:
                return tokens, None
            assert isinstance(module, SentencePretrainer)
            # In published checkpoints, the first of the two scores is for "follows".
            label = jnp.where(batch["is_next"] < 0, IGNORED, 1 - batch["is_next"])
            return tokens, summed(cross_entropy(module.follows(features), label))

        tokens, following = model.apply({"params": params}, method=score, rngs=rngs)
        metrics = {"loss": tokens.nll, "accuracy": tokens.correct}
        if following is None:
            return Losses(tokens.objective, tokens.weight, metrics)
        of_pairs = {
            "next_sentence_loss": following.nll,
            "next_sentence_accuracy": following.correct,
        }
        # A sum over rows is scaled to predictions by the number in a full row. The mean over parts
        # of a batch then equals that of the whole; with the actual numbers of predictions it would
        # not.
        objective = tokens.objective + batch["labels"].shape[1] * following.objective
        pairs = dict.fromkeys(of_pairs, following.weight)
        return Losses(objective, tokens.weight, metrics | of_pairs, pairs)

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: TokenFiller, params: Params, data: MaskedData) -> Json:
        """The entropy, to compare the loss with."""
        return {"unigram_entropy": data.entropy}

    def show(self, model: TokenFiller, params: Params, data: MaskedData, workdir: Path) -> Shown:
        """Shows some masked rows with the model's fillings; also in `fillings.txt`."""
        batch = data.validation_batches()[0]
        inputs = (*encoder_inputs(batch), batch["positions"])
        logits = np.asarray(apply(model, "fill", params, *inputs))
        lines = [f"unigram entropy {data.entropy:.4f} nats"]
        for row in range(min(3, int((batch["labels"] != IGNORED).any(1).sum()))):
            tokens = data.tokenizer.tokens(batch["tokens"][row, : batch["lengths"][row]])
            lines.append(" ".join(tokens))
            for place, label, scores in zip(
                batch["positions"][row], batch["labels"][row], logits[row], strict=True
            ):
                if label != IGNORED:
                    truth, guess = data.tokenizer.tokens([label, scores.argmax()])
                    lines.append(f"  {place:>4} {truth:<16} {guess}")
        write_text(workdir / "fillings.txt", "\n".join(lines) + "\n")
        return Shown("\n".join(lines[:12]), {"unigram_entropy": data.entropy})

    # ---------------------------------------------------------------------------- predict

    def predict(
        self, model: TokenFiller, params: Params, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """The most probable tokens for each mask (`[MASK]`, or RoBERTa's `<mask>`) of each line.

        Raises:
            DataError: for a line without a mask, or with one beyond the longest row.
        """
        tokenizer = self.load_tokenizer(workdir)
        mask = tokenizer.names.mask
        number, longest = 0, self.inputs.max_length
        for chunk in in_chunks(lines, _LINES_AT_ONCE):
            rows = lay_out_texts(tokenizer, chunk, None, longest, special=True)
            for row, line in enumerate(chunk):
                number += 1
                require_characters(line, f"line {number} of the input")
                places = np.flatnonzero(rows.tokens[row] == tokenizer.mask)
                if len(places) == 0 or len(places) < line.count(mask):
                    raise DataError(
                        f"line {number} of the input has no {mask} among its first "
                        f"{longest} tokens: write it where a word is to be filled in."
                        if len(places) == 0
                        else f"line {number} of the input has a {mask} beyond {longest} "
                        f"tokens: shorten it."
                    )
                length = rounded_up(int(rows.lengths[row]), longest)
                inputs = (
                    array[row : row + 1, :length] if array.ndim == 2 else array[row : row + 1]
                    for array in (rows.arrays()[name] for name in INPUTS)
                )
                # There are few lengths, each compiled once.
                positions = np.zeros((1, rounded_up(len(places), length, least=1)), np.int32)
                positions[0, : len(places)] = places
                logits = apply(model, "fill", params, *inputs, positions)
                found = _fillings(tokenizer, np.asarray(logits)[0, : len(places)])
                cut = too_long(longest, model.context) if rows.cut[row] else ""
                yield found._replace(cut=cut)


def _fillings(tokenizer: EncoderTokenizer, logits: Float[np.ndarray, "M V"]) -> Prediction:
    """The best tokens for each mask, with their probabilities."""
    masks = []
    for scores in softmax(logits)[:, : tokenizer.vocab_size]:
        best = np.argsort(-scores, kind="stable")[:_FILLINGS]
        tokens = tokenizer.tokens(best)
        masks.append(
            [
                {"token": t, "probability": float(scores[i])}
                for t, i in zip(tokens, best, strict=True)
            ]
        )
    text = "\t".join(
        " ".join(f"{_visible(filling['token'])} {filling['probability']:.3f}" for filling in found)
        for found in masks
    )
    return Prediction(text, {"masks": masks})


def _visible(token: str) -> str:
    """A token without its leading space; in quotes if it is only white space."""
    return token.strip() or repr(token)
