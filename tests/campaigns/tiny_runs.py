"""Tiny runs of several tasks, and what each says, for campaigns that spoil copies of them."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

# Forked processes find these imported, and with them the flags of what they import.
import transformer.decoding.embed
import transformer.decoding.translate
import transformer.runs.exporting
import transformer.runs.opening
import transformer.training.loop
import transformer.training.validation  # noqa: F401
from tests.campaigns.frame import ROOT, Done
from tests.campaigns.warm import Warm
from transformer import runtime
from transformer.caches import cache_folder

_CACHE = (cache_folder() or Path(tempfile.gettempdir())) / "campaigns"
# A run has checkpoints of these steps, and the last one is in none of them.
STEPS, END = (4, 8), 12
_TRAINING = [
    f"--config.train.{field}={value}"
    for field, value in {
        "save_every": 4,
        "evaluate_every": 4,
        "keep_last": 3,
        "log_every": 1,
        "steps_per_dispatch": 2,
        "tensorboard": False,
    }.items()
] + ["--config.optimizer.schedule=constant", "--config.optimizer.warmup=2 steps"]
_SMALL = ["--config.model.num_layers=1", "--config.model.num_heads=2", "--config.model.width=16"]
_WORDS = ["the", "model", "reads", "what", "it", "wrote", "and", "writes", "again"]


class Job(NamedTuple):
    """One command on a run.

    Attributes:
        script: of `scripts/`.
        flags: beside `--workdir`; `OUT` in them is a path of its own.
        stdin: given to it.
    """

    script: str
    flags: tuple[str, ...] = ()
    stdin: str = ""


class TinyRun(NamedTuple):
    """A run of few steps.

    Attributes:
        name: of its task.
        training: flags that train it, but for the duration.
        jobs: what else is done with it, by name.
        folder: with checkpoints of `STEPS`.
        other: the same with another seed and other data, whose files fit.
        end: the run, gone on to `END` steps.
        answers: of each job with each checkpoint, by name of the job and step.
    """

    name: str
    training: list[str]
    jobs: dict[str, Job]
    folder: Path
    other: Path
    end: Path
    answers: dict[tuple[str, int], str]

    @property
    def best(self) -> int:
        """The step with the lowest validation loss."""
        measured = {step: loss for step, split, loss in losses(self.folder, 0) if split != "train"}
        return min(STEPS, key=lambda step: measured[step])


def keep_compiled() -> None:
    """All that is compiled, however small, is kept for the forked processes that come later."""
    os.environ["XDG_CACHE_HOME"] = str(_CACHE)

    def prepare() -> None:
        jax.config.update("jax_compilation_cache_dir", str(_CACHE / "compiled"))
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    runtime.prepare_process = prepare


def tiny_runs(warm: Warm, names: Sequence[str] = ()) -> list[TinyRun]:
    """Trains them, in another process; those of the same code are trained once.

    Args:
        warm: the process.
        names: of which; all if empty.
    """
    digest = hashlib.sha256()
    for path in sorted((*ROOT.glob("transformer/**/*.py"), *ROOT.glob("configs/*.py"))):
        digest.update(path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    folder = _CACHE / f"runs-{digest.hexdigest()[:16]}"
    return [_made(warm, name, folder / name) for name in names or _MAKERS]


def _made(warm: Warm, name: str, folder: Path) -> TinyRun:
    """One of them; what it answers is written last."""
    written = folder / "answers.json"
    if not written.exists():
        shutil.rmtree(folder, ignore_errors=True)
    for part in ("data", "changed"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    training, jobs = _MAKERS[name](folder / "data", 0)
    run, other, end = (folder / part for part in ("run", "other", "end"))
    if not written.exists():
        _trained(warm, training, run, STEPS[-1])
        # Other data, as far as they fit: the same words in another order.
        changed = _MAKERS[name](folder / "changed", 1)[0]
        _trained(warm, [*changed, "--config.train.seed=1"], other, STEPS[-1])
        shutil.copytree(run, end)
        _trained(warm, training, end, END)
        answers = []
        for job in jobs:
            for step in STEPS:
                done, answer = perform(warm, jobs[job], run, folder, f"--checkpoint={step}")
                assert done.code == 0, done.stderr
                answers.append([job, step, answer])
        written.write_text(json.dumps(answers), "utf-8")
    found = json.loads(written.read_text("utf-8"))
    answers = {(job, step): answer for job, step, answer in found}
    return TinyRun(name, training, jobs, run, other, end, answers)


def _trained(warm: Warm, training: list[str], workdir: Path, duration: int) -> None:
    done = train(warm, training, workdir, duration)
    assert done.code == 0, done.stderr


def train(warm: Warm, training: list[str], workdir: Path, duration: int = END) -> Done:
    """Trains, or goes on."""
    flags = [*training, f"--config.train.duration={duration}", f"--workdir={workdir}"]
    return warm.script("train.py", *flags, seconds=120.0)


def perform(warm: Warm, job: Job, workdir: Path, folder: Path, *more: str) -> tuple[Done, str]:
    """Does a job; what it wrote on stdout and into its output stands in the text.

    Args:
        warm: the process that does it.
        job: which.
        workdir: the run.
        folder: for its output.
        *more: further flags.
    """
    out = folder / "out"
    flags = [flag.replace("OUT", str(out)) for flag in job.flags]
    flags += [f"--workdir={workdir}", *more]
    done = warm.script(job.script, *flags, stdin=job.stdin, seconds=120.0)
    written = folder.glob("out*")
    files = sorted({path for top in written for path in (top, *top.rglob("*")) if path.is_file()})
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files]
    for path in folder.glob("out*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return done, f"{done.stdout.replace(str(out), 'OUT')}{digests}"


def array_notes(workdir: Path, step: int = END) -> object:
    """The fingerprints of all arrays of a checkpoint; None if it has no notes."""
    with contextlib.suppress(OSError, ValueError):
        path = workdir / "checkpoints" / str(step) / "metadata" / "metadata"
        return json.loads(path.read_text("utf-8"))["arrays"]
    return None


def losses(workdir: Path, after: int) -> list[tuple]:
    """The losses that a run has logged after a step."""
    found = []
    for line in (workdir / "metrics.jsonl").read_text("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            content = json.loads(line)
            if content["step"] > after and "loss" in content:
                found.append((content["step"], content["split"], content["loss"]))
    return found


def _sentences(seed: int, count: int) -> list[str]:
    source = random.Random(seed)
    return [" ".join(source.choices(_WORDS, k=6)) for _ in range(count)]


def _language(folder: Path, seed: int) -> tuple[list[str], dict[str, Job]]:
    path = folder / "text.txt"
    path.write_text("\n".join(_sentences(seed, 200)), "utf-8")
    training = [
        f"--config={ROOT / 'configs' / 'gpt_char.py'}",
        f"--config.task.path={path}",
        "--config.model.context=16",
        "--config.task.batch_size=4",
        "--config.task.sample_length=8",
        "--config.train.ema_decay=0.5",
        *_SMALL,
        *_TRAINING,
    ]
    writing = ("--prompt=the ", "--max_new_tokens=12", "--temperature=1.0", "--json")
    jobs = {"evaluate": Job("evaluate.py", ("--json",)), "generate": Job("generate.py", writing)}
    return training, jobs


def _translation(folder: Path, seed: int) -> tuple[list[str], dict[str, Job]]:
    source = random.Random(seed)
    for name, count in (("train", 60), ("val", 8)):
        lines = [source.choices(_WORDS, k=source.randint(3, 6)) for _ in range(count)]
        for end, step in (("src", 1), ("tgt", -1)):
            text = "".join(" ".join(line[::step]) + "\n" for line in lines)
            (folder / f"{name}.{end}").write_text(text, "utf-8")
    training = [
        f"--config={ROOT / 'configs' / 'translation.py'}",
        f"--config.task.train={folder}/train.src,{folder}/train.tgt",
        f"--config.task.validation={folder}/val.src,{folder}/val.tgt",
        "--config.task.tokenizer.size=290",
        "--config.task.max_length=12",
        "--config.task.batch_tokens=128",
        "--config.task.extra_length=4",
        "--config.model.num_encoder_layers=1",
        "--config.model.num_decoder_layers=1",
        "--config.model.num_heads=2",
        "--config.model.width=16",
        "--config.model.feed_forward_width=16",
        *_TRAINING,
    ]
    jobs = {
        "evaluate": Job("evaluate.py", ("--json",)),
        "generate": Job("generate.py", ("--json",), "the model reads\nit wrote again\n"),
    }
    return training, jobs


def _classification(folder: Path, seed: int) -> tuple[list[str], dict[str, Job]]:
    source = random.Random(seed)
    rows = [{"text": text, "label": source.choice("abc")} for text in _sentences(seed, 90)]
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    training = [
        f"--config={ROOT / 'configs' / 'bert_classify.py'}",
        f"--config.task.train={path}",
        "--config.task.tokenizer.size=80",
        "--config.model.context=24",
        "--config.task.max_length=24",
        "--config.task.batch_size=8",
        *_SMALL,
        *_TRAINING,
    ]
    lines = "the model reads\nit wrote again\n"
    jobs = {
        "evaluate": Job("evaluate.py", ("--json",)),
        "predict": Job("predict.py", ("--json",), lines),
        "embed": Job("embed.py", ("--output=OUT.npy",), lines),
        "export": Job("export_hf.py", ("--target=OUT",)),
    }
    return training, jobs


def _images(folder: Path, seed: int) -> tuple[list[str], dict[str, Job]]:
    source = np.random.default_rng(seed)
    for part, count in (("train", 12), ("val", 3)):
        for place, name in enumerate(("blue", "green", "red")):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = source.integers(0, 100, (12, 12, 3), np.uint8)
                pixels[..., place] += 100
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    training = [
        f"--config={ROOT / 'configs' / 'vit_digits.py'}",
        f"--config.task.path={folder}",
        "--config.model.image_size=8",
        "--config.model.patch_size=4",
        "--config.task.batch_size=8",
        "--config.task.validation_batch_size=9",
        # As published ones, to be exported.
        "--config.model.pooling=class",
        "--config.model.stem=patches",
        "--config.model.positions=learned",
        *_SMALL,
        *_TRAINING,
    ]
    pictures = tuple(str(folder / "val" / name / "0.png") for name in ("blue", "red"))
    jobs = {
        "evaluate": Job("evaluate.py", ("--json",)),
        "predict": Job("predict.py", ("--json", *pictures)),
        "export": Job("export_hf.py", ("--target=OUT",)),
    }
    return training, jobs


_MAKERS: dict[str, Callable[[Path, int], tuple[list[str], dict[str, Job]]]] = {
    "language": _language,
    "translation": _translation,
    "classification": _classification,
    "images": _images,
}
