"""Extractive question answering: the answer is a span of a text (SQuAD)."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from transformer.composition import FLAT
from transformer.data.embedded.play_questions import play_questions
from transformer.data.labels import windows as question_windows
from transformer.data.labels.squad import Question, read_squad
from transformer.data.labels.windows import Windows, best_answers, make_windows
from transformer.data.reading.json_text import loads
from transformer.data.reading.text import in_chunks, require_characters
from transformer.data.rows import Rows
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.errors import ConfigError, DataError
from transformer.files import write_json
from transformer.limits import AnyReal, Length, Share, Whole
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.ops.masks import real_tokens
from transformer.scoring.squad import best_null_threshold, squad_scores
from transformer.tasks.parts.abilities import Prediction
from transformer.tasks.parts.encoder import INPUTS, EncoderInput
from transformer.tasks.parts.labelled import LabelledRows
from transformer.tasks.parts.models import TextTagger
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.training_files import TrainingFiles
from transformer.types import Batch, Facts, Json, Params

# The most lines that `predict` answers at once.
_LINES_AT_ONCE = 64
_INPUTS, _FILES = EncoderInput(), TrainingFiles()


class _Asked(NamedTuple):
    """Questions and the windows made of them."""

    questions: list[Question]
    windows: Windows


@dataclasses.dataclass(frozen=True)
class QuestionAnswering:
    """Finding the first and the last token of an answer; its fields are `config.task`.

    Devlin et al. 2019, sections 4.2 and 4.3. A row is a window: question, part of the
    context, three special tokens.

    Attributes:
        inputs: how texts become rows.
        files: the files that are read.
        train: a file in the JSON format of SQuAD 1.1 or 2.0; empty for questions about who says a
            line of Shakespeare's plays.
        validation: as `train`; empty takes the end of `train`.
        validation_fraction: the fraction of its questions for validation.
        num_questions: the number of embedded questions, validation included.
        context_words: the most words of an embedded context.
        unanswerable: the fraction of embedded questions without an answer.
        stride: the number of tokens between the starts of consecutive windows in the context.
        max_question_length: the most tokens of a question; longer ones are cut at the end.
        max_answer_length: the most tokens of an answer.
        n_best: the number of answers that are searched for.
        no_answer: whether "there is no answer" is a possible answer, as in SQuAD 2.0.
        null_threshold: "there is no answer" is predicted if its score exceeds that of the best
            answer by more than this.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size", "num_outputs")
    entry: ClassVar[str] = "tag"
    model_kind: ClassVar[type] = TextTagger

    inputs: Annotated[EncoderInput, FLAT] = _INPUTS
    files: Annotated[TrainingFiles, FLAT] = _FILES
    num_questions: Annotated[int, Whole(20, 10**6)] = 20_000
    context_words: Annotated[int, Whole(20, 10**6)] = 120
    unanswerable: Share = 0.0
    stride: Length = 64
    max_question_length: Length = 32
    max_answer_length: Length = 30
    n_best: Annotated[int, Whole(1, 1000)] = 5
    no_answer: bool = False
    null_threshold: AnyReal = 0.0

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> LabelledRows[_Asked]:
        """Reads or makes the questions, makes or loads the tokenizer, and cuts windows."""
        train, validation = self._read()
        texts = [*dict.fromkeys(q.context for q in train), *(q.question for q in train)]
        tokenizer = self.inputs.make_tokenizer(workdir, texts)
        windows, held_out = self._windows(tokenizer, train), self._windows(tokenizer, validation)
        without = sum(not q.answers for q in train)
        if without and not self.no_answer:
            raise DataError(
                f"{without:,} of {len(train):,} questions to train on have no answer: set "
                f"config.task.no_answer=True."
            )
        notes = (
            f"{len(train):,} questions to train on, {without:,} of them without an answer, "
            f"{len(validation):,} to validate on; {len(windows.starts) / len(train):.2f} windows a "
            f"question.",
            *self._cut_questions(windows, "to train on"),
            *self._cut_questions(held_out, "to validate on"),
        )
        return LabelledRows(
            self.inputs,
            tokenizer,
            ("start", "end"),
            _rows(windows),
            _rows(held_out),
            _Asked(validation, held_out),
            notes,
        )

    def load_validation(self, paths: Sequence[str], workdir: Path) -> LabelledRows[_Asked]:
        """Other questions to validate on, with the tokenizer of a run."""
        if len(paths) != 1:
            raise ConfigError("questions are evaluated from one file: give --path.")
        tokenizer, questions = self.load_tokenizer(workdir), read_squad(paths[0])
        windows = self._windows(tokenizer, questions)
        rows = _rows(windows)
        asked, notes = _Asked(questions, windows), self._cut_questions(windows, f"of {paths[0]}")
        return LabelledRows(self.inputs, tokenizer, ("start", "end"), rows, rows, asked, notes)

    def load_tokenizer(self, workdir: Path) -> EncoderTokenizer:
        """The tokenizer of a run."""
        return self.inputs.load_tokenizer(workdir)

    def check_model(self, model: TextTagger) -> None:
        """Refuses a model with too few positions."""
        self.inputs.check_model(model)

    def example_inputs(self, model: TextTagger) -> tuple[Int[Array, "..."], ...]:
        """One row."""
        return self.inputs.example_inputs(model)

    def _read(self) -> tuple[list[Question], list[Question]]:
        if not self.files.train:
            return play_questions(
                self.num_questions,
                seed=0,
                context_words=self.context_words,
                unanswerable=self.unanswerable,
            )
        train = read_squad(self.files.train)
        if self.files.validation:
            return train, read_squad(self.files.validation)
        count = self.files.num_held_out(len(train), "questions")
        return train[:-count], train[-count:]

    def _windows(self, tokenizer: EncoderTokenizer, questions: Sequence[Question]) -> Windows:
        return make_windows(
            tokenizer,
            questions,
            max_length=self.inputs.max_length,
            stride=self.stride,
            max_question_length=self.max_question_length,
        )

    def _cut_questions(self, windows: Windows, which: str) -> tuple[str, ...]:
        """The messages about questions that were cut."""
        count = np.count_nonzero(windows.cut)
        if not count:
            return ()
        return (
            f"{count:,} of {len(windows.cut):,} questions {which} are longer than "
            f"config.task.max_question_length ({self.max_question_length}) and have lost their "
            f"ends.",
        )

    # ------------------------------------------------------------------------------- loss

    def losses(
        self, model: TextTagger, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Mean of the cross-entropies of the answer's first and last positions."""
        inputs = (batch[name] for name in INPUTS)
        outputs: PyTree = model.apply({"params": params}, *inputs, method="tag", rngs=rngs)
        real = real_tokens(batch["tokens"].shape[1], batch["lengths"])
        outputs = jnp.where(real[..., None], outputs, -1e9)
        valid = batch["valid"]
        start, end = (
            cross_entropy(outputs[..., place], jnp.where(valid > 0, batch[name], IGNORED))
            for place, name in enumerate(("starts", "ends"))
        )
        loss = jnp.sum(start.nll + end.nll) / 2
        exact = jnp.sum(start.correct * end.correct)
        return Losses(loss, jnp.sum(valid).astype(jnp.float32), {"loss": loss, "accuracy": exact})

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: TextTagger, params: Params, data: LabelledRows[_Asked]) -> Json:
        """Exact match and F1 in percent."""
        return self._answered(model, params, data)[1]

    def show(
        self, model: TextTagger, params: Params, data: LabelledRows[_Asked], workdir: Path
    ) -> Shown:
        """Shows scores and some answers; writes all to `predictions.json` in SQuAD's format."""
        found, scores = self._answered(model, params, data)
        texts = {question_id: self._text(each) for question_id, each in found.items()}
        write_json(workdir / "predictions.json", texts, indent=1)
        lines = [f"{name:<26} {value:.2f}" for name, value in scores.items()]
        asked = data.examples
        for question in asked.questions[:: max(1, len(asked.questions) // 3)][:3]:
            truth = question.answers[0].text if question.answers else "(no answer)"
            answer = texts[question.id] or "(no answer)"
            lines += [f"  {question.question}", f"  -> {answer}"]
            if answer != truth:
                lines += [f"  not {truth}"]
        return Shown("\n".join(lines), scores)

    def _answered(
        self, model: TextTagger, params: Params, data: LabelledRows[_Asked]
    ) -> tuple[dict[str, question_windows.Prediction], dict[str, float]]:
        asked = data.examples
        predictions = self._answers(model, params, asked)
        found = {q.id: each for q, each in zip(asked.questions, predictions, strict=True)}
        texts = {question_id: self._text(each) for question_id, each in found.items()}
        scores = squad_scores(texts, asked.questions)
        if self.no_answer:
            best = best_null_threshold(
                {key: each.answers[0].text if each.answers else "" for key, each in found.items()},
                {key: _null_margin(each) for key, each in found.items()},
                asked.questions,
            )
            scores |= {"best_null_threshold": best.threshold, "best_f1": best.f1}
        return found, scores

    def _answers(
        self, model: TextTagger, params: Params, asked: _Asked, *, progress: bool = True
    ) -> list[question_windows.Prediction]:
        outputs = self.inputs.outputs(
            model, params, _rows(asked.windows), self.entry, progress=progress
        )
        return best_answers(
            asked.windows,
            outputs[..., 0],
            outputs[..., 1],
            asked.questions,
            max_answer_length=self.max_answer_length,
            n_best=self.n_best,
        )

    def _text(self, found: question_windows.Prediction) -> str:
        """The best answer; empty for "there is no answer"."""
        if not found.answers:
            return ""
        if self.no_answer and _null_margin(found) > self.null_threshold:
            return ""
        return found.answers[0].text

    # ---------------------------------------------------------------------------- predict

    def predict(
        self, model: TextTagger, params: Params, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """The answer to each line: a question and a context separated by a tab.

        A line may also be a JSON object with `question` and `context`, which may hold line feeds.

        Raises:
            DataError: for a line that is neither, or lacks one of them, naming the line.
        """
        tokenizer = self.load_tokenizer(workdir)
        number = 0
        for chunk in in_chunks(lines, _LINES_AT_ONCE):
            questions = [_asked_in(line, number + place) for place, line in enumerate(chunk, 1)]
            number += len(chunk)
            asked = _Asked(questions, self._windows(tokenizer, questions))
            cut = (
                f"have a question of more than {self.max_question_length} tokens "
                f"(--max_question_length)"
            )
            answered = self._answers(model, params, asked, progress=False)
            for found, is_cut in zip(answered, asked.windows.cut, strict=True):
                text = self._text(found)
                answers = [answer._asdict() for answer in found.answers]
                details = {"answer": text, "answers": answers, "null_score": found.null_score}
                yield Prediction(" ".join(text.split()), details, cut if is_cut else "")


def _rows(windows: Windows) -> Rows:
    """The arrays that the model and the loss need."""
    return {
        "tokens": windows.tokens,
        "token_types": windows.token_types.astype(np.int32),
        "lengths": windows.lengths,
        "starts": windows.starts,
        "ends": windows.ends,
    }


def _null_margin(found: question_windows.Prediction) -> float:
    """The score of "there is no answer" minus that of the best answer."""
    return found.null_score - found.answers[0].score if found.answers else float("inf")


def _asked_in(line: str, number: int) -> Question:
    """The question of a line of input."""
    expected = (
        f"line {number} of the input: expected a question and a context with a tab between, or a "
        f"JSON object with both"
    )
    if line.lstrip().startswith("{"):
        try:
            given = cast("Facts", loads(line))
            question, context = (given[key] for key in ("question", "context"))
        except (ValueError, KeyError) as error:
            raise DataError(f"{expected}; {error}.") from None
    else:
        question, _, context = line.partition("\t")
    for name, text in (("question", question), ("context", context)):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{expected}; the {name} is empty.")
        require_characters(text, f"line {number} of the input: the {name}")
    return Question(str(number), question, context, ())
