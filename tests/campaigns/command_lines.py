"""Wrong command lines of every script: each ends in one message that names what is wrong, exit 2.

python -m tests.campaigns.command_lines --seconds=60
python -m tests.campaigns.command_lines --count=600 --report=report.json

What is drawn comes from what fields and flags declare of themselves: another type, below and above
the range, NaN, huge, empty, Unicode. A value that its field may have is accepted, or refused by
name; nothing is trained.
"""

import functools
import json
import random
import runpy
import shutil
import struct
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any, NamedTuple

# Children find these imported.
from tests.campaigns import odd_values
from tests.campaigns.frame import (
    ROOT,
    Case,
    Done,
    Outcome,
    Result,
    campaign,
    draws,
    ended_badly,
    refused,
    script,
)
from tests.campaigns.odd_lines import (
    ACCEPTED,
    ARGUMENTS,
    FILES,
    GRAMMARS,
    NEVER,
    TEXT_FLAGS,
    WORKDIRS,
)
from tests.campaigns.odd_values import (
    NO_NUMBERS,
    PATHS,
    REAL,
    TEXTS,
    WHOLE,
    is_legal,
    odd_text,
)
from transformer.command_line import FLAGS
from transformer.composition import config_fields
from transformer.fields import Declared, declared
from transformer.training.sections import OPTIONAL_SECTIONS, choices, owner

MODELS_OF = {
    "language_modeling": ("gpt", "llama", "gemma", "mixtral"),
    "masked_lm": ("bert", "modern_bert", "esm"),
    "text_classification": ("bert", "modern_bert"),
    "tagging": ("bert", "modern_bert"),
    "question_answering": ("bert", "modern_bert"),
    "translation": ("vaswani", "t5"),
    "text_to_text": ("t5", "vaswani"),
    "denoising": ("t5",),
    "image_classification": ("vit",),
    "masked_images": ("vit",),
    "transcription": ("speech", "speech_encoder", "whisper"),
    "solved_game": ("board_transformer",),
    "self_play": ("board_transformer",),
    "othello_moves": ("gpt",),
    "key_to_door": ("decision_transformer",),
}
# Models and tasks that no config of these has.
UNDRAWN = {"sound_codec", "audio_tokens", "speaking", "chess_moves", "completion"}
PAIRS = [(task, model) for task, models in MODELS_OF.items() for model in models]
SMALL_MODEL = {
    **dict.fromkeys(
        ("num_layers", "num_encoder_layers", "num_decoder_layers", "decoder_layers"), 1
    ),
    **dict.fromkeys(("width", "decoder_width", "max_distance"), 16),
    **dict.fromkeys(("num_heads", "decoder_heads"), 2),
    **dict.fromkeys(("context", "feed_forward_width", "source_context"), 32),
    **dict.fromkeys(("image_size", "window", "num_buckets", "num_features"), 8),
    **dict.fromkeys(("patch_size", "num_experts"), 4),
}
SMALL_TASK = {
    **dict.fromkeys(("batch_size", "rows_multiple", "sample_length"), 2),
    **dict.fromkeys(("image_size", "max_question_length", "stride"), 8),
    **dict.fromkeys(("max_length", "length"), 24),
    **dict.fromkeys(("vocab_size", "size"), 300),
    "context": 16,
    "batch_tokens": 96,
    "max_target_length": 12,
    "validation_fraction": 0.3,
}
# Of recordings, in Hz.
RATE = 2000
HEARD = {"sampling_rate": RATE, "num_mels": 8, "window": 64, "hop": 32}
# Whisper reads windows of one length, two frames a vector.
WINDOW = {"pad_seconds": 2 * SMALL_MODEL["context"] * HEARD["hop"] / RATE, "scaling": "whisper"}
SMALL_TASK_OF = {
    "transcription": {
        "features": HEARD,
        "max_seconds": 2.0,
        "batch_seconds": 4.0,
        "num_shapes": 1,
        "beam_size": 2,
    },
    "solved_game": {"game": {"rows": 2, "columns": 2, "in_row": 2}},
    "self_play": {"game": {"rows": 2, "columns": 2, "in_row": 2}, "simulations": 2},
    "othello_moves": {"validation_games": 2},
    "key_to_door": {"episodes": 8, "validation_episodes": 2, "tries": 2},
}
SMALL_PAIR = {
    # These do not learn which sentences follow each other.
    ("masked_lm", "modern_bert"): {"next_sentence": False},
    ("masked_lm", "esm"): {"next_sentence": False, "tokenizer": {"kind": "residues"}},
    ("transcription", "speech_encoder"): {"ctc_weight": 1.0, "decoding": "ctc"},
    ("transcription", "whisper"): {
        "ctc_weight": 0.0,
        "decoding": "attention",
        "features": HEARD | WINDOW,
    },
}
SMALL_MODEL_OF = {("othello_moves", "gpt"): {"context": 60}}
SENTENCES = [f"the {a} {b} reads what it {c}." for a in "abcd" for b in "efgh" for c in "ijklm"]


class Prepared(NamedTuple):
    """What all cases have: folders with data, config files, and runs by task."""

    root: Path

    def config(self, task: str, model: str) -> str:
        """The flag of a config file."""
        return f"--config={self.root / 'configs' / f'{task}_{model}.py'}"


@functools.cache
def prepared() -> Prepared:
    """Written and trained once, before the first case."""
    root = Path(tempfile.mkdtemp(prefix="campaign-lines-"))
    data, configs = root / "data", root / "configs"
    data.mkdir()
    configs.mkdir()
    files = _data(data)
    for task, model in PAIRS:
        read = files.get(f"{task} {model}", files.get(task, {}))
        (configs / f"{task}_{model}.py").write_text(_config(task, model, read), "utf-8")
    return Prepared(root)


@functools.cache
def run_of(task: str) -> Path:
    """A trained run, made when the first case needs it."""
    return _trained(task, task)


@functools.cache
def adapted() -> Path:
    """A run with adapters."""
    begin = f"--config.init.workdir={run_of('language_modeling')}"
    return _trained("language_modeling", "adapted", begin, "--config.lora.rank=2")


def _trained(task: str, name: str, *flags: str) -> Path:
    workdir, config = prepared().root / name, prepared().config(task, MODELS_OF[task][0])
    given = (config, "--config.train.duration=1", f"--workdir={workdir}", *flags)
    done = script("train.py", *given, seconds=600)
    assert done.code == 0, done.stderr
    return workdir


@functools.cache
def exported() -> Path:
    """A folder as other libraries have it."""
    target = prepared().root / "exported"
    flags = (f"--workdir={run_of('text_classification')}", f"--target={target}")
    done = script("export_hf.py", *flags, seconds=600)
    assert done.code == 0, done.stderr
    return target


def _data(folder: Path) -> dict[str, dict[str, str]]:
    """Small files of every task, by the fields that name them."""
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(SENTENCES[i : i + 4]) for i in range(80)) + "\n", "utf-8")
    documents = folder / "documents.txt"
    groups = [SENTENCES[i : i + 8] for i in range(0, 80, 8)]
    documents.write_text("\n\n".join("\n".join(group) for group in groups), "utf-8")
    labels = folder / "labels.tsv"
    rows = [f"{sentence}\t{'ab'[i % 2]}" for i, sentence in enumerate(SENTENCES)]
    labels.write_text("text\tlabel\n" + "\n".join(rows) + "\n", "utf-8")
    tags = folder / "tags.txt"
    lines = ["\n".join(f"{word} O" for word in sentence.split()) for sentence in SENTENCES]
    tags.write_text("\n\n".join(f"Anna B-PER\n{line}" for line in lines) + "\n", "utf-8")
    squad = folder / "squad.json"
    questions = [
        {"id": str(i), "question": "what?", "answers": [{"text": "reads", "answer_start": 8}]}
        for i in range(30)
    ]
    passage = {"context": SENTENCES[0], "qas": questions}
    squad.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [passage]}]}), "utf-8")
    for name, texts in (("source.txt", SENTENCES), ("target.txt", SENTENCES[::-1])):
        (folder / name).write_text("\n".join(texts) + "\n", "utf-8")
    pairs = folder / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"source": s, "target": s[:8]}) + "\n" for s in SENTENCES), "utf-8"
    )
    return {
        "language_modeling": {"path": str(text)},
        "denoising": {"path": str(text)},
        "masked_lm": {"path": str(documents)},
        "text_classification": {"train": str(labels)},
        "tagging": {"train": str(tags)},
        "question_answering": {"train": str(squad)},
        "translation": {"train": f"{folder / 'source.txt'},{folder / 'target.txt'}"},
        "text_to_text": {"train": str(pairs)},
        "masked_lm esm": {"path": str(_proteins(folder / "a.fasta"))},
        "transcription": {"train": str(_recordings(folder / "recordings.jsonl"))},
    }


def _proteins(path: Path) -> Path:
    source = random.Random(0)
    proteins = ("".join(source.choices("ACDEFGHIKL", k=12)) for _ in range(40))
    records = "".join(f">{number}\n{each}\n" for number, each in enumerate(proteins))
    path.write_text(records, "utf-8")
    return path


def _recordings(path: Path) -> Path:
    """Noises of about a second, and their manifest."""
    source = random.Random(0)
    rows = []
    for number in range(12):
        samples = [source.randrange(-9000, 9000) for _ in range(RATE // 2 + 100 * number)]
        with wave.open(str(path.with_name(f"{number}.wav")), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
        rows.append({"audio": f"{number}.wav", "text": "abc"[: 1 + number % 3]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def _config(task: str, model: str, files: dict[str, str]) -> str:
    """The text of a config file."""
    sections = {}
    of_model = SMALL_MODEL | SMALL_MODEL_OF.get((task, model), {})
    of_task = SMALL_TASK | SMALL_TASK_OF.get(task, {}) | files | SMALL_PAIR.get((task, model), {})
    for kind, name, small in (("model", model, of_model), ("task", task, of_task)):
        known = config_fields(owner(kind, name))
        values = {key: value for key, value in small.items() if key in known}
        sections[kind] = f"section({kind!r}, {name!r}, **{values!r})"
    return (
        "from ml_collections import ConfigDict\n"
        "from transformer.training.sections import section\n\n"
        'def get_config(variant=""):\n'
        "    config = ConfigDict()\n"
        f"    config.model = {sections['model']}\n"
        f"    config.task = {sections['task']}\n"
        "    config.optimizer = section('optimizer')\n"
        "    config.train = section('train', duration='4 steps', tensorboard=False)\n"
        "    config.mesh = section('mesh')\n"
        "    config.init, config.lora = section('init'), section('lora')\n"
        "    return config\n"
    )


# ------------------------------------------------------------------------------ fields


def one_field(source: random.Random) -> Case:
    """A field of some section of some config gets a value that is hardly meant."""
    task, model = source.choice(PAIRS)
    places = fields_of("model", owner("model", model)) | fields_of("task", owner("task", task))
    for kind in ("optimizer", "train", "mesh", *OPTIONAL_SECTIONS):
        places |= fields_of(kind, owner(kind, None))
    # Each section as often.
    kind = source.choice(("model", "task", "task", "optimizer", "train", "mesh", "init", "lora"))
    name = source.choice([place for place in places if place.startswith(f"{kind}.")])
    field = places[name]
    text = odd_text(field, source)
    given = f"--config.{name}={text}"

    def run(folder: Path) -> Result:
        odd_places(folder)
        flags = (prepared().config(task, model), given, "--dry_run")
        done = script("train.py", *flags, where=folder)
        return judged(done, name, field, text)

    return Case(f"fields of {kind}", f"{task}, {model}: {given[:200]!r}", run)


def fields_of(place: str, owner: type) -> dict[str, Declared]:
    """The fields of a section and of all sections in it, by their places."""
    places = {}
    for name, field in declared(owner).items():
        if field.base in odd_values.PARSERS:
            places[f"{place}.{name}"] = field
        else:
            places |= fields_of(f"{place}.{name}", field.base)
    return places


def judged(done: Done, name: str, field: Declared, text: str) -> Result:
    """What became of a value: accepted if the field may have it, or refused by name."""
    legal = is_legal(field, text)
    if done.code == 0 and ended_badly(done) is None:
        if legal:
            return Result(Outcome.RIGHT)
        return Result(Outcome.UNCLEAR, f"{name}={text[:100]!r} was accepted")
    # What a field may have can still not go with others, or name a file that is not there.
    return refused(done, names=() if legal else (name,))


def odd_places(folder: Path) -> None:
    """What the odd paths of `PATHS` lead to, in the folder that a case runs in."""
    (folder / "file").write_text("x", "utf-8")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dir").mkdir()
    (folder / "empty.txt").write_bytes(b"")
    (folder / "empty.json").write_text("{}", "utf-8")
    (folder / "a.json").write_text("[[", "utf-8")
    (folder / "binary.json").write_bytes(bytes(range(256)))
    (folder / "a.txt").write_text("x", "utf-8")
    (folder / "a.model").write_bytes(b"\x0a\x00\xff")


# ------------------------------------------------------------------------------- flags


@functools.cache
def flags_of(name: str) -> dict[str, Any]:
    """The flags that a script defines, by name."""
    known = set(FLAGS)
    runpy.run_path(str(ROOT / "scripts" / name), run_name="flags")
    found = {flag: FLAGS[flag] for flag in set(FLAGS) - known}
    for flag in found:
        delattr(FLAGS, flag)
    return dict(sorted(found.items()))


SCRIPTS = ("train.py", "evaluate.py", "generate.py", "predict.py", "embed.py", "export_hf.py")
SCRIPTS += ("import_hf.py", "adapters.py", "explain.py", "transcribe.py", "play.py")
SCRIPTS += ("plan.py", "sweep.py")


# The task whose run a script reads, and further flags with which it works.
READ_BY = {
    "evaluate.py": ("language_modeling",),
    "generate.py": ("language_modeling", "--max_new_tokens=2", "--prompt=the"),
    "explain.py": ("language_modeling", "--prompt=the", "--output={folder}/page.html"),
    "predict.py": ("text_classification",),
    "embed.py": ("text_classification", "--output={folder}/x.npy"),
    "export_hf.py": ("text_classification", "--target={folder}/target"),
    "transcribe.py": ("transcription", "{data}/0.wav"),
    "play.py": ("solved_game", "--json"),
}


def usual(name: str, folder: Path) -> list[str]:
    """Flags with which a script works."""
    if name in READ_BY:
        task, *more = READ_BY[name]
        data = prepared().root / "data"
        return [
            f"--workdir={run_of(task)}",
            *(flag.format(folder=folder, data=data) for flag in more),
        ]
    config = prepared().config("language_modeling", "gpt")
    if name == "import_hf.py":
        return [f"--source={exported()}", f"--workdir={folder / 'new'}"]
    if name == "adapters.py":
        return [f"--workdir={adapted()}", f"--output={folder / 'x.safetensors'}"]
    return {
        "train.py": [config, "--dry_run"],
        "plan.py": [config, "--topology=cpu:1"],
        "sweep.py": [config, "--grid=train.seed=1,2", "--dry_run", f"--workdir={folder / 's'}"],
    }[name]


# Numbers that no flag of ours may have.
# Texts for flags that have a grammar of their own, none of which is right.
BESIDE = {
    "coordinator": ["--num_processes=2", "--process_id=0"],
    "space": ["--search=optuna", "--grid="],
}


def one_flag(source: random.Random) -> Case:
    """A flag of some script gets a value that is hardly meant."""
    name = source.choice(SCRIPTS)
    flag = source.choice([flag for flag in flags_of(name) if flag not in ("config", "workdir")])
    kind = flags_of(name)[flag]
    type_ = kind.parser.flag_type()
    never: tuple[str, ...] = ()
    if flag in GRAMMARS:
        texts = never = GRAMMARS[flag]
    elif type_ in ("int", "float"):
        texts, never = NO_NUMBERS + (WHOLE if type_ == "int" else REAL), NEVER
    elif type_ == "bool":
        texts = odd_values.BOOLS
    else:
        texts = TEXTS if flag in TEXT_FLAGS else PATHS
    text = source.choice(texts)
    given = f"--{flag}={text}"

    def run(folder: Path) -> Result:
        odd_places(folder)
        flags = [*usual(name, folder), given]
        if flag in ("space", "search"):
            flags = [one for one in flags if not one.startswith(("--grid", "--dry_run"))]
            flags += ["--search=optuna"] if flag == "space" else ["--space=train.seed=uniform(1,2)"]
        flags += BESIDE["coordinator"] if flag == "coordinator" else []
        done = script(name, *flags, stdin=b"the a e reads\n", where=folder, seconds=90)
        bad = ended_badly(done)
        if bad is not None:
            return bad
        if done.code == 0 and (text not in never) and _parses(kind, text):
            return Result(Outcome.RIGHT)
        if done.code == 0:
            return Result(Outcome.UNCLEAR, f"{given[:100]!r} was accepted")
        if "needs the package" in done.stderr:
            return refused(done, code=1)
        return refused(done, names=(flag, text) if text in never else ())

    return Case(f"flags of {name}", f"{given[:200]!r}", run)


def _parses(flag: Any, text: str) -> bool:
    try:
        flag.parser.parse(text)
    except (ValueError, TypeError):
        return False
    return True


# ----------------------------------------------------------------------------- workdirs

RUNS_READ = ("evaluate.py", "generate.py", "predict.py", "embed.py", "export_hf.py", "adapters.py")
RUNS_READ += ("explain.py", "transcribe.py", "play.py")


def one_workdir(source: random.Random) -> Case:
    """A folder that is none, or that nobody can write."""
    name, place = source.choice((*SCRIPTS[:-2], "sweep.py")), source.choice(WORKDIRS)

    def run(folder: Path) -> Result:
        odd_places(folder)
        (folder / "dangling").symlink_to(folder / "not" / "there")
        (folder / "texts").mkdir()
        (folder / "texts" / "thesis.tex").write_text("chapter one", "utf-8")
        flags = [f for f in usual(name, folder) if not f.startswith(("--workdir", "--dry_run"))]
        path = place if place.startswith("/") or not place else str(folder / place)
        # Where nothing is wrong, nothing is to be trained for long.
        few = ["--config.train.duration=1"] if name in ("train.py", "sweep.py") else []
        done = script(
            name, *flags, *few, f"--workdir={path}", stdin=b"a\n", where=folder, seconds=120
        )
        if done.code == 0 and place in ACCEPTED and name not in RUNS_READ:
            return Result(Outcome.RIGHT)
        return refused(
            done, names=("--workdir", path[:60].encode("utf-8", "backslashreplace").decode())
        )

    return Case(f"workdirs of {name}", f"{place[:100]!r}", run)


# ------------------------------------------------------------------------- config files


def one_config_file(source: random.Random) -> Case:
    """A config file that is broken."""
    name = source.choice(("train.py", "plan.py", "sweep.py"))
    what, way = (
        source.choice(sorted(FILES)),
        source.choice(("", ":variant", "override", "in two", "dir")),
    )

    def run(folder: Path) -> Result:
        content, path = FILES[what], folder / "mine.py"
        if way == "dir":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        flags = [flag for flag in usual(name, folder) if not flag.startswith("--config=")]
        given = ["--config", str(path)] if way == "in two" else [f"--config={path}"]
        given = [f"--config={path}:variant"] if way == ":variant" else given
        given += ["--config.model.width=8"] if way == "override" else []
        return refused(script(name, *given, *flags, where=folder), names=("mine.py", "config"))

    return Case("config files", f"{name}: a file that {what} ({way or 'plain'})", run)


# ----------------------------------------------------------------------------- the rest


def one_argument(source: random.Random) -> Case:
    """Something that is no flag, or half of one."""
    name, argument = source.choice(SCRIPTS), source.choice(ARGUMENTS)

    def run(folder: Path) -> Result:
        flags = [*usual(name, folder), argument]
        done = script(name, *flags, stdin=b"the a\n", where=folder, seconds=90)
        # Some of them say nothing, or what is so already; predict.py answers arguments.
        means_nothing = argument in ("--", "-", "--nojson=false", "--flagfile=", "--workdir==")
        if done.code == 0 and ended_badly(done) is None and means_nothing:
            return Result(Outcome.RIGHT)
        return refused(done)

    return Case("arguments", f"{name} {argument[:100]!r}", run)


WEIGHTED = (
    [one_field] * 5 + [one_flag] * 4 + [one_workdir, one_config_file, one_config_file, one_argument]
)


if __name__ == "__main__":
    assert {model for _, model in PAIRS} == set(choices("model")) - UNDRAWN
    assert set(MODELS_OF) == set(choices("task")) - UNDRAWN
    # Before the first case, so that none waits for it.
    if "-h" not in sys.argv and "--help" not in sys.argv:
        prepared()
    try:
        campaign("command_lines", draws(WEIGHTED), count=600)
    finally:
        shutil.rmtree(prepared().root, ignore_errors=True)
