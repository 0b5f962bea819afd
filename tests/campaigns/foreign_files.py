"""Published models of all families with one file changed: read right, or refused by name.

    python -m tests.campaigns.foreign_files --count=2000

A case changes a file of a small published model (bits, bytes, values, headers) and reads it as
`import_hf.py` does, in a process that may take 20 seconds and 1,000 MB. What is read has to be what
was read before, or what another legal value asks for; it is then built and computed. One in thirty
goes through the script itself.
"""

import dataclasses
import functools
import hashlib
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.campaigns import foreign_bases as bases
from tests.campaigns import mutations
from tests.campaigns.frame import (
    Case,
    Done,
    Outcome,
    Result,
    campaign,
    ended_badly,
    forked,
    refused,
    script,
)
from tests.campaigns.mutations import Mutation
from tests.campaigns.worker import Worker
from transformer.errors import UserError
from transformer.interop import published
from transformer.nn.compute import Compute
from transformer.runs import importing as imported
from transformer.runs.importing import Imported, read_run
from transformer.training.sections import build
from transformer.training.selection import from_paths

SECONDS, MEGABYTES = 20.0, 1000.0
# How many cases there are for each that goes through the script.
_SCRIPTS = 30
# What is the same in what was read before and after.
_SAME = ("model", "task", "labels", "tokenizer", "files", "params", "sample")


def read(question: tuple[str, str | None, bool]) -> dict[str, Any]:
    """What becomes of a model: in the process of the worker.

    Args:
        question: its place, that of its tokenizer, and whether to compute something with it.
    """
    place, tokenizer, computes = question
    try:
        found = read_run(Path(place), tokenizer=tokenizer and Path(tokenizer))
    except UserError as error:
        return {"error": str(error), "code": error.exit_code}
    digest = hashlib.sha256()
    for path, array in sorted(found.published.params.items()):
        digest.update(f"{path} {array.shape}".encode() + np.asarray(array).tobytes())
    used = {name: one._asdict() for name, one in found.published.files.used().items()}
    model, task = found.config.model.to_dict(), found.config.task.to_dict()
    text = "" if found.run.tokenizer is None else found.run.tokenizer.identity()
    answer = {
        "model": model,
        "task": task,
        "labels": found.published.labels,
        "tokenizer": hashlib.sha256(text.encode()).hexdigest(),
        "files": dict(found.run.files),
        "params": digest.hexdigest(),
        "sample": _sample(found),
        "used": used,
        "finite": _finite([*model.values(), *task.values()]),
    }
    if computes:
        _compute(found)
    return answer


def _finite(values: list[Any]) -> bool:
    return all(np.isfinite(value) for value in values if isinstance(value, float))


def _sample(found: Imported) -> list[int]:
    """Some tokens."""
    tokenizer, text = found.run.tokenizer, "hello the cat Sat on a house. 12"
    if tokenizer is None:
        return []
    try:
        return tokenizer.encode(text).tolist()
    except UserError:
        return []


def _compute(found: Imported) -> None:
    """The forward pass, operation by operation: nothing is compiled as a whole."""
    config = found.config.model
    model = build("model", {**config, "compute": Compute()})
    variables = {"params": from_paths(found.published.params)}
    tokens = jnp.zeros((1, 4), jnp.int32)
    if config.name == "vit":
        size = (1, config.image_size, config.image_size, config.channels)
        model.apply(variables, jnp.zeros(size))
    elif config.name in ("t5", "vaswani"):
        model.apply(variables, tokens, tokens)
    else:
        model.apply(variables, tokens)


@dataclasses.dataclass(frozen=True)
class Base:
    """A model that nobody has changed.

    Attributes:
        name: of its family and form.
        folder: it is in.
    """

    name: str
    folder: Path

    def question(self, folder: Path, *, computes: bool = False) -> tuple[str, str | None, bool]:
        """What to ask of it, or of a copy of it."""
        place, tokenizer = folder, None
        if self.name.startswith("gguf"):
            place = folder / "model.gguf"
        if self.name == "llama2.c":
            place, tokenizer = folder / bases.BIN, str(folder / bases.BIN_TOKENIZER)
        return str(place), tokenizer, computes


@functools.cache
def _bases() -> tuple[Base, ...]:
    place = Path(tempfile.mkdtemp(prefix="campaign-bases-"))
    done = forked(lambda: bases.make_all(place), seconds=600, megabytes=8000)
    if done.code:
        raise SystemExit(f"the models could not be made: {done.stderr[-3000:]}")
    return tuple(Base(folder.name, folder) for folder in sorted(place.iterdir()))


@functools.cache
def _worker() -> Worker:
    # Models are mostly those of the bases: what is traced for one is kept, however many there are.
    for module, name in ((published, "_entries_of"), (imported, "_paths_of_the_job")):
        traced = getattr(module, name).__wrapped__
        setattr(module, name, functools.lru_cache(maxsize=None)(traced))
    return Worker(read, seconds=SECONDS, megabytes=MEGABYTES)


@functools.cache
def _unchanged(base: Base) -> dict[str, Any]:
    done = _worker().ask(base.question(base.folder))
    if done.code:
        raise SystemExit(f"{base.name} cannot be read as it is: {done.stderr}")
    return json.loads(done.stdout)


def cases(source: random.Random) -> Case:
    """A family, one of its files, and a change of it."""
    base = source.choice(_bases())
    path = bases.chosen(source, base.folder)
    name = str(path.relative_to(base.folder))
    changed = _mutation(source, base, path)
    through_script = source.randrange(_SCRIPTS) == 0
    kind = "weights" if path.suffix in bases.WEIGHTS or path.name == bases.BIN else "side files"
    if "tokenizer" in name or "vocab" in name or path.suffix in (".spm", ".model", ".txt"):
        kind = "tokenizer"
    run = functools.partial(_run, base, name, changed, through_script)
    return Case(f"{base.name.split(',')[0]}: {kind}", f"{base.name}, {name}: {changed.what}", run)


def _mutation(source: random.Random, base: Base, path: Path) -> Mutation:  # noqa: PLR0911
    content = path.read_bytes()
    if source.random() < 0.02:
        return Mutation(None, "deleted")
    if bases.is_json(path):
        if source.random() < 0.8:
            return mutations.of_json(source, content, bases.known(base.folder))
        return mutations.of_bytes(source, content)
    end = bases.beginning(content, path.name)
    if path.suffix == ".safetensors":
        if source.random() < 0.7:
            return mutations.of_safetensors(source, content)
    elif path.suffix == ".gguf":
        from tests.interop.gguf_files import gguf

        how = source.random()
        if how < 0.6:
            return mutations.of_gguf(source, gguf, *bases.gguf_parts(base.name))
        if how < 0.8:
            return mutations.of_words(source, content, source.choice([4, 8]), 40)
        return mutations.of_words(source, content, source.choice([4, 8]), end)
    elif path.suffix == ".bin":
        if source.random() < 0.7:
            return mutations.of_words(source, content, 4, end if path.name == bases.BIN else 400)
    elif path.suffix in (".spm", ".model") and source.random() < 0.3:
        return mutations.of_scores(source, content)
    return _of_bytes(source, content, end)


def _of_bytes(source: random.Random, content: bytes, end: int) -> Mutation:
    """Changes bytes, three times in four before the arrays."""
    if source.random() < 0.25 or end >= len(content):
        found = mutations.of_bytes(source, content)
    else:
        found = mutations.of_bytes(source, content[:end])
        if found.content is not None:
            found = found._replace(content=found.content + content[end:])
    same = found.content is not None and len(found.content) == len(content)
    return found._replace(numbers=same and (found.content or b"")[:end] == content[:end])


def _run(base: Base, name: str, changed: Mutation, through_script: bool, folder: Path) -> Result:
    shutil.copytree(base.folder, folder / "model")
    path = folder / "model" / name
    path.unlink()
    if changed.content is not None:
        path.write_bytes(changed.content)
    question = base.question(folder / "model")
    done = _worker().ask(question)
    names = [name, path.name, str(folder / "model"), *changed.key.split(".")[-1:]]
    # Bytes that change may change any value, which is then named.
    if changed.key and "." not in changed.key and name.endswith("config.json"):
        names = [name, path.name, changed.key or name, changed.also or name]
    if through_script:
        of_script = _through_script(question, folder)
        bad = ended_badly(of_script)
        if bad is not None:
            return bad
        if of_script.code != done.code:
            return Result(Outcome.UNCLEAR, f"the script ends with {of_script.code}: {done.stderr}")
        if of_script.code:
            return refused(of_script, names=names)
    return _judged(base, name, changed, done, names, folder)


def _through_script(question: tuple[str, str | None, bool], folder: Path) -> Done:
    place, tokenizer, _ = question
    flags = [f"--source={place}", f"--workdir={folder / 'run'}", "--json"]
    flags += [f"--tokenizer={tokenizer}"] if tokenizer else []
    return script("import_hf.py", *flags, seconds=60, megabytes=MEGABYTES)


def _judged(  # noqa: PLR0911
    base: Base, name: str, changed: Mutation, done: Done, names: list[str], folder: Path
) -> Result:
    bad = ended_badly(done)
    if bad is not None:
        return bad
    if done.code:
        return refused(done, names=names)
    found, before = json.loads(done.stdout), _unchanged(base)
    if not found["finite"]:
        return Result(Outcome.DIFFERENT, f"a field is not finite: {found['model']} {found['task']}")
    if changed.numbers:
        return Result(Outcome.RIGHT, "other numbers")
    different = [what for what in _SAME if found[what] != before[what]]
    honoured = _parts(changed.key) & set(found["used"].get(name, {}).get("honoured", ()))
    if changed.key.startswith("post_processor.") and changed.key.endswith(".type"):
        # The library tells these apart by their other keys, whatever the type says.
        honoured = set()
    if honoured and changed.believed:
        return Result(Outcome.DIFFERENT, f"{changed.key} is honoured, and {changed.believed}")
    if not different:
        if honoured and changed.other:
            return Result(Outcome.DIFFERENT, f"{changed.key} is honoured, and changes nothing")
        return Result(Outcome.RIGHT)
    if "model" in different:
        computed = _worker().ask(base.question(folder / "model", computes=True))
        bad = ended_badly(computed)
        if bad is not None:
            return bad
    return Result(Outcome.RIGHT, f"another legal value, of {', '.join(different)}")


def _parts(key: str) -> set[str]:
    """A key inside of others, and those that it is inside of."""
    names = key.split(".")
    return {".".join(names[:count]) for count in range(1, len(names) + 1)}


if __name__ == "__main__":
    campaign("foreign_files", cases, count=60)
