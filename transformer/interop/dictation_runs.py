"""Models that write recordings down: the run of an imported one, the files of an exported one."""

from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from transformer.data.audio.features import LogMel
from transformer.data.audio.prompts import TASKS, Marks, Prompt, marks_of, require_marks
from transformer.data.audio.windows import Windows
from transformer.data.reading.json_text import shown
from transformer.data.reading.library_errors import in_our_words
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, SentenceTokenizer
from transformer.data.tokenizers.sentences import LibrarySentenceTokenizer
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.files import write_bytes, write_json
from transformer.interop.checked_values import LARGEST, refuse
from transformer.interop.family import Published, RunParts, Source, Trained
from transformer.interop.opening import tokenizer_classes
from transformer.interop.searches import begin_of, read_searches, search_files
from transformer.interop.side_files import CONFIG, GENERATION, SETTINGS, SideFile, SideFiles
from transformer.interop.sounds import PREPROCESSOR, sound_content, sound_fields
from transformer.interop.tokenizers.decoders import DecoderClass, Usual, decoder_tokenizer
from transformer.interop.word_times import word_time_content, word_time_fields
from transformer.ops.search_rules import Search
from transformer.types import Json

_IRRELEVANT_WRITING = {
    "bos_token_id": "decoder_start_token_id says it",
    "return_token_timestamps": "of times of words",
}
_IRRELEVANT_TOKENS = {
    **dict.fromkeys(("language", "task", "predict_timestamps"), "what stands before labels"),
    "normalizer_file": "of scores",
    "normalizer": "of scores",
    "dropout": "in training only",
}
# The smallest vocabulary of a model of several languages.
_MULTILINGUAL = 51_865


class _Recordings(Protocol):
    """How recordings are heard, and what is asked for."""

    features: LogMel
    prompt: Prompt


@runtime_checkable
class Dictates(Protocol):
    """The task of a model that writes recordings down."""

    recordings: _Recordings
    windows: Windows


@runtime_checkable
class _Sizes(Protocol):
    """Sizes of the model."""

    context: int


# The class of a model, and a run of it.
Model = TypeVar("Model", bound=_Sizes)
_END = "<|endoftext|>"

TrainedDictation = Trained[Model, Dictates, SentenceTokenizer]


def dictation_run(source: Source, published: Published, max_length: int | None) -> RunParts:
    """The run made from a published model: it writes recordings down, window by window.

    Args:
        source: the opened checkpoint.
        published: what was read from it.
        max_length: tokens of a transcript to train on; None takes the model's limit.

    Raises:
        DataError: if the side files are missing, contradict each other, or ask for what is not
            done here.
    """
    model = published.model
    tokenizer = _tokenizer(source, model["vocab_size"])
    marks = marks_of(tokenizer)
    if marks is None:
        raise DataError(
            f"{source.where} has a tokenizer without <|startoftranscript|> and other tokens that "
            f"such models need: give another with --tokenizer=tokenizer.json."
        )
    begin = begin_of(source.files)
    if begin != marks.start:
        refuse(source.config.where, "decoder_start_token_id", begin, f"{marks.start}, its token,")
    _require_usual_end(source.files[SETTINGS])
    writing = _writing(source.files, marks, model)
    fields: Json = {
        "features": sound_fields(source.files, model),
        **writing._asdict(),
        "decoding": "windows",
        "ctc_weight": 0.0,
        "label_smoothing": 0.0,
        "max_length": min(max_length or model["context"], model["context"]),
    }
    return RunParts(fields, tokenizer, model={"begin_id": marks.start})


def _tokenizer(source: Source, size: int) -> LibrarySentenceTokenizer:
    """The tokenizer of a folder, or the one that was given."""
    if source.tokenizer is not None:
        made = parse_tokenizer_json(source.tokenizer, source.where)
    else:
        source.files[SETTINGS].irrelevant(_IRRELEVANT_TOKENS)
        with in_our_words(f"{source.where} holds a tokenizer that cannot be used"):
            made = decoder_tokenizer(
                source.files,
                source.where,
                tokenizer_classes(DecoderClass),
                Usual("WhisperTokenizer"),
                size,
            )
    return LibrarySentenceTokenizer(made)


def _require_usual_end(settings: SideFile) -> None:
    """Refuses a tokenizer whose texts end with another token than Whisper's transcripts.

    Raises:
        DataError: naming file and key.
    """
    end = settings.get("eos_token")
    name = end.get("content") if isinstance(end, dict) else end
    if name not in (None, _END):
        refuse(settings.where, "eos_token", name, _END)


class _Writing(NamedTuple):
    """Fields of the task about what is written."""

    prompt: Json
    windows: Json


def _writing(files: SideFiles, marks: Marks, model: Json) -> _Writing:
    """How transcripts are written, from `generation_config.json` or an older `config.json`.

    What no file says is as in the publisher's own program, which tries higher temperatures.
    """
    said = search_files(files)
    searches = read_searches(files, marks.end, model["context"])
    search = searches.search
    said.irrelevant(_IRRELEVANT_WRITING)
    _require_plain(said, search, searches.beam_size)
    _require_marks(said, marks)
    multilingual = said.get("is_multilingual")
    if multilingual is None:
        multilingual = model["vocab_size"] >= _MULTILINGUAL
    forced = _forced(said, files, marks)
    language, task = said.text_or_none("language"), said.text_or_none("task")
    if language is not None:
        language = language.lower().removeprefix("<|").removesuffix("|>")
        if language not in marks.languages:
            refuse(said.where, "language", language, "the code of a language")
    if task not in (None, *TASKS):
        refuse(said.where, "task", task, f"one of {', '.join(TASKS)}")
    if not said.flag("is_multilingual", bool(multilingual)) and (language or task == TASKS[1]):
        key = "language" if language else "task"
        refuse(said.where, key, language or task, "nothing, as is_multilingual is false,")
    prompt = {
        "multilingual": bool(multilingual),
        "language": (language or forced.language or "") if multilingual else "",
        "task": (task or forced.task or TASKS[0]) if multilingual else TASKS[0],
    }
    most = search.max_new_tokens
    if said.peek("max_new_tokens") is None:
        # The library does not count the prompt, and never goes beyond what the model has room for.
        most = 0 if said.peek("max_length") is None else search.max_new_tokens + 1
    first = said.whole_or_none("max_initial_timestamp_index", least=0)
    windows: Json = {
        "timestamps": said.flag("return_timestamps", False),
        "beam_size": searches.beam_size,
        "length_penalty": searches.length_penalty,
        "suppressed": tuple(sequence[0] for sequence in search.sequences()),
        "suppressed_first": search.unwritten_first,
        "latest_first": first,
        **word_time_fields(said, files[CONFIG], model),
        "max_new_tokens": 0 if most >= model["context"] else most,
    }
    for key, field in (
        ("logprob_threshold", "log_prob_limit"),
        ("no_speech_threshold", "no_speech_limit"),
    ):
        if said.get(key) is not None:
            windows[field] = said.number(key, least=-LARGEST)
    if said.get("condition_on_prev_tokens") is not None:
        windows["condition"] = said.flag("condition_on_prev_tokens", False)
    try:
        require_allowed("task.windows", Windows(**windows))
    except ConfigError as error:
        raise DataError(f"{said.where} says of texts what cannot be read: {error}") from None
    return _Writing(prompt, windows)


def _require_plain(said: SideFile, search: Search, beam_size: int) -> None:
    """Refuses rules of searches that windows do not have.

    Raises:
        DataError: names the first key.
    """
    keys = {
        "min_new_tokens": (search.min_new_tokens, 0),
        "no_repeat_ngram_size": (search.no_repeat_ngram_size, 0),
        "repetition_penalty": (search.repetition_penalty, 1.0),
        "forced_bos_token_id": (search.forced_first, ()),
        "forced_eos_token_id": (search.forced_last, ()),
        "eos_token_id": (search.more_ends, ()),
        "early_stopping": (search.early_stopping if beam_size > 1 else "false", "false"),
        "bad_words_ids": (max((len(s) for s in search.sequences()), default=1), 1),
    }
    for key, (found, known) in keys.items():
        if found != known:
            name = "min_length" if key not in said and key == "min_new_tokens" else key
            raise DataError(
                f"{said.where} has {name}: {shown(said.peek(name))}, which is not done when "
                f"recordings are written down."
            )


def _require_marks(said: SideFile, marks: Marks) -> None:
    """Refuses ids of tokens that differ from those of the tokenizer."""
    known: Json = {
        "lang_to_id": {f"<|{code}|>": token for code, token in marks.languages.items()},
        "task_to_id": dict(marks.tasks),
        "no_timestamps_token_id": marks.no_times,
        "prev_sot_token_id": marks.previous,
    }
    for key, value in known.items():
        if said.get(key) is not None and said[key] != value:
            raise DataError(
                f"{said.where}: {key} is {shown(said[key])}, and by the tokenizer it is "
                f"{shown(value)}: they do not belong together."
            )


class _Forced(NamedTuple):
    """What the oldest files force texts to begin with."""

    language: str | None = None
    task: str | None = None


def _forced(said: SideFile, files: SideFiles, marks: Marks) -> _Forced:
    """The language and the task in `forced_decoder_ids`; null leaves the language open.

    Raises:
        DataError: for other tokens.
    """
    key = "forced_decoder_ids"
    if said.get(key) is None:
        said = files[CONFIG]
    else:
        files[CONFIG].irrelevant({key: f"{GENERATION} says it"})
    given = said.get(key)
    if given is None:
        return _Forced()
    codes = {token: code for code, token in marks.languages.items()}
    tasks = {token: task for task, token in marks.tasks.items()}
    known: tuple[object, ...] = (None, *codes)
    tokens: list[object] = []
    for pair in given if isinstance(given, list) else [None]:
        fits = isinstance(pair, list) and len(pair) == 2 and pair[0] == len(tokens) + 1
        tokens.append(pair[1] if fits else -1)
    # A model of one language forces no more than the token that says that there are no times.
    found = _Forced() if tokens in ([], [marks.no_times]) else None
    match tokens:
        case [language, task] | [language, task, marks.no_times] if task in tasks:
            found = _Forced(codes.get(language), tasks[task]) if language in known else None
    if found is None:
        expected = "pairs of a place, from 1, and a token: language, task, <|notimestamps|>"
        refuse(said.where, key, given, expected)
    return found


def write_dictation_files(trained: TrainedDictation[_Sizes], folder: Path) -> list[str]:
    """Writes the tokenizer, `preprocessor_config.json` and `generation_config.json`.

    Args:
        trained: the run.
        folder: the folder to write to.

    Returns:
        Sentences about what the run does but the folder does not.
    """
    task, model = trained.task, trained.model
    marks = require_marks(trained.tokenizer)
    write_bytes(folder / TOKENIZER_FILE, (trained.workdir / TOKENIZER_FILE).read_bytes())
    end = trained.tokenizer.tokens([marks.end])[0]
    words = {"tokenizer_class": "WhisperTokenizer", "model_max_length": model.context}
    words |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), end)
    write_json(folder / SETTINGS, words)
    write_json(folder / PREPROCESSOR, sound_content(task.recordings.features))
    write_json(folder / GENERATION, _generation(task, marks, model.context))
    return [
        f"config.task.windows.{field} is {value}: {what}"
        for field, value, what in (
            ("temperatures", task.windows.temperatures, "give it to generate as temperature."),
            ("compression_limit", task.windows.compression_limit, "there is none in the files."),
        )
        if value is not None and value != (0.0,)
    ]


def _generation(task: Dictates, marks: Marks, context: int) -> Json:
    """The content of `generation_config.json`, which `_writing` reads."""
    windows, prompt = task.windows, task.recordings.prompt
    content: Json = {
        "decoder_start_token_id": marks.start,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), marks.end),
        "is_multilingual": prompt.multilingual,
        "no_timestamps_token_id": marks.no_times,
        "prev_sot_token_id": marks.previous,
        "max_length": windows.max_new_tokens or context,
        "return_timestamps": windows.timestamps,
        "condition_on_prev_tokens": windows.condition,
        "suppress_tokens": list(windows.suppressed),
        "begin_suppress_tokens": list(windows.suppressed_first),
        **word_time_content(windows),
    }
    if prompt.multilingual:
        content |= {
            "lang_to_id": {f"<|{code}|>": token for code, token in marks.languages.items()},
            "task_to_id": dict(marks.tasks),
            "task": prompt.task,
        }
        if prompt.language:
            content["language"] = f"<|{prompt.language}|>"
    if windows.latest_first is not None:
        content["max_initial_timestamp_index"] = windows.latest_first
    if windows.beam_size > 1:
        content |= {
            "num_beams": windows.beam_size,
            "length_penalty": windows.length_penalty,
            "early_stopping": False,
        }
    for key, value in (
        ("logprob_threshold", windows.log_prob_limit),
        ("no_speech_threshold", windows.no_speech_limit),
    ):
        if value is not None:
            content[key] = value
    return {key: value for key, value in content.items() if value != []}
