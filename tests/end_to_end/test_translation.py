"""Translation as a user meets it: train on two files, translate, evaluate, score, resume."""

import gzip
import json
import random
import shutil

import jax
import numpy as np
import pytest

from tests.end_to_end.conftest import ROOT, call, fails
from tests.runs import assert_same_run
from transformer.decoding import translate as translating
from transformer.decoding.translate import Output
from transformer.runs.opening import open_run
from transformer.tasks.parts.protocol import Shown
from transformer.tasks.translation import Translation

pytestmark = pytest.mark.usefixtures("undrawn")

WORDS = ["ei", "zwei", "drei", "vier", "fünf"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sentences and the same backwards, 60 to train on and 20 to validate on."""
    folder = tmp_path_factory.mktemp("pairs")
    source = random.Random(0)
    for name, count in (("train", 60), ("val", 20)):
        # Every word is a token: batches have two shapes, of 8 and of 12 tokens.
        lines = [source.choices(WORDS, k=source.randint(1, 11)) for _ in range(count)]
        text = "".join(" ".join(line) + "\n" for line in lines)
        (folder / f"{name}.src").write_text(text, "utf-8")
        text = "".join(" ".join(line[::-1]) + "\n" for line in lines)
        with gzip.open(folder / f"{name}.tgt.gz", "wt", encoding="utf-8") as file:
            file.write(text)
    return folder


def flags(files, **changes):
    task = {
        "train": f"{files}/train.src,{files}/train.tgt.gz",
        "validation": f"{files}/val.src,{files}/val.tgt.gz",
        "tokenizer.size": 290,
        "max_length": 12,
        "batch_tokens": 128,
        "extra_length": 4,
    }
    values = {
        "config": ROOT / "configs" / "translation.py",
        **{f"config.task.{name}": value for name, value in task.items()},
        "config.model.num_encoder_layers": 1,
        "config.model.num_decoder_layers": 1,
        "config.model.width": 16,
        "config.model.feed_forward_width": 16,
        "config.model.dropout_rate": 0.1,
        "config.train.duration": 8,
        "config.train.save_every": 4,
        "config.train.evaluate_every": 8,
        "config.train.log_every": 1,
        "config.train.steps_per_dispatch": 3,
        "config.train.tensorboard": False,
    }
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    return [f"--{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    done = call("train.py", *flags(files), f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "60 pairs to train on, 20 to validate on" in done.stderr
    assert "2 shapes, each compiled once (16x8, 8x12)" in done.stderr
    assert "padding" in done.stderr
    return workdir


def test_run_folder(trained):
    final = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert final["split"] == "final"
    assert {"bleu", "chrf", "exact_match"} <= final.keys()
    table = (trained / "translations.tsv").read_text("utf-8").splitlines()
    assert len(table) == 21
    assert all(line.count("\t") == 2 for line in table)
    for name in ("alignment.png", "tokenizer.json", "config.json"):
        assert (trained / name).stat().st_size > 100


def test_resumed_is_uninterrupted(files, trained, tmp_path, monkeypatch):
    """To the bit, over batches of several shapes: as if killed before the last checkpoint."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "checkpoints" / "8")
    monkeypatch.setattr(Translation, "show", lambda *arguments: Shown("", {}))
    done = call("train.py", *flags(files), f"--workdir={workdir}")
    assert "from step 4" in done.stderr
    assert_same_run(workdir, trained, final=False)


def test_translates_line_by_line(trained):
    lines = ["ei zwei", "", "vier", "  ", "vier drei fünf " * 9, "drei"]
    done = call("generate.py", f"--workdir={trained}", input="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    outputs = done.stdout.split("\n")
    assert len(outputs) == len(lines) + 1
    assert outputs[1] == outputs[3] == outputs[-1] == ""
    assert "1 of 6 sentences have more than 11 tokens (--max_source_len" in done.stderr
    flags = (f"--workdir={trained}", "--max_source_len=4")
    said = call("generate.py", *flags, input="\n".join(lines)).stderr
    assert "1 of 6 sentences have more than 3 tokens" in said
    written = "\ufeff" + "  \r\n ".join(lines) + "\r\n"
    assert call("generate.py", f"--workdir={trained}", input=written).stdout == done.stdout

    options = ["--beam_size=3", "--num_return=2", "--length_penalty=1.5", "--max_len=5"]
    done = call("generate.py", f"--workdir={trained}", *options, input="ei\nzwei")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["1", "1", "2", "2"]
    assert float(rows[0][1]) >= float(rows[1][1])

    done = call("generate.py", f"--workdir={trained}", "--json", input="ei\n\n")
    first, second = json.loads(done.stdout)["translations"]
    assert set(first[0]) == {"text", "score"}
    assert second[0]["text"] == ""


def test_an_input_without_an_output_has_an_empty_line(trained, monkeypatch):
    """As where the model gives no finite numbers; and line feeds in outputs end no line."""
    output = Output("zwei\nei\tvier", np.zeros(0, np.int32), 0.0, 0.0)
    monkeypatch.setattr(
        translating, "translate", lambda *arguments: [[output], [], [output, output]]
    )
    flags, lines = f"--workdir={trained}", "ei\nzwei\ndrei\n"
    done = call("generate.py", flags, input=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "zwei ei\tvier\n\nzwei ei\tvier\n"
    assert "1 inputs have no output" in done.stderr
    done = call("generate.py", flags, "--num_return=2", input=lines)
    assert done.stdout == "".join(f"{i}\t0.0000\tzwei ei vier\n" for i in (1, 3, 3))
    done = call("generate.py", flags, "--json", input=lines)
    assert [len(each) for each in json.loads(done.stdout)["translations"]] == [1, 0, 2]


def test_evaluates_other_files(files, trained):
    pairs = [f"--source={files}/val.src", f"--reference={files}/val.tgt.gz"]
    flags = [f"--workdir={trained}", *pairs, "--checkpoint=last:2"]
    done = call("evaluate.py", *flags, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert {"chrf", "accuracy", "loss"} <= result.keys()

    done = call("evaluate.py", *flags, "--score")
    scores = np.array([line.split("\t") for line in done.stdout.splitlines()], float)
    assert scores.shape == (20, 2)
    mean = -scores[:, 0].sum() / scores[:, 1].sum()
    np.testing.assert_allclose(mean, result["loss"], rtol=1e-4)


def test_mean_of_checkpoints(trained):
    mean = open_run(trained, "last:2").params
    first, second = (open_run(trained, step).params for step in ("4", "8"))
    for leaf, *parts in zip(*map(jax.tree.leaves, (mean, first, second)), strict=True):
        np.testing.assert_allclose(leaf, (parts[0] + parts[1]) / 2, atol=1e-7)


def test_unusable_pairs(files, tmp_path):
    (tmp_path / "short").write_text("ei\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "latin").write_bytes("fünf\n".encode("latin1") * 60)
    (tmp_path / "cut.gz").write_bytes((files / "train.tgt.gz").read_bytes()[:40])
    train = f"{files}/train.src"
    for other, said in (
        ("short", ("60 lines", "has 1")),
        ("empty", ("empty",)),
        ("latin", ("not UTF-8", "byte 1")),
        ("cut.gz", ("damaged gzip",)),
        ("missing", ("does not exist",)),
    ):
        change = {"config__task__train": f"{train},{tmp_path / other}"}
        done = call("train.py", *flags(files, **change), f"--workdir={tmp_path / 'run'}")
        fails(done, 2, *said)
    for change, said in (
        ({"config__task__train": train}, ("SOURCE,TARGET",)),
        (
            {"config__task__max_length": 6, "config__task__too_long": "refuse"},
            ("training pair", "max_length"),
        ),
        ({"config__train__microbatches": 3}, ("rows", "microbatches")),
        ({"config__task__embedded": "sorted"}, ("sort",)),
    ):
        done = call("train.py", *flags(files, **change), f"--workdir={tmp_path / 'run'}")
        fails(done, 2, *said)
    assert not (tmp_path / "run").exists()


def test_refuses_what_it_cannot_translate(trained, tmp_path):
    workdir = f"--workdir={trained}"
    long = "ei zwei drei vier fünf " * 4
    fails(call("generate.py", workdir, "--too_long=refuse", input=f"ei\n{long}\n"), 2, "line 2")
    latin = "ei\nfünf\n".encode("latin1")
    done = call("generate.py", workdir, input=latin)
    fails(done, 2, "line 2", "0xfc")
    fails(call("generate.py", workdir, "--prompt=ei", input=""), 2, "--prompt", "translation")
    fails(call("generate.py", workdir, "--beam_size=2", "--num_return=3", input="ei"), 2, "beams")
    for penalty in ("nan", "-1", "9", "inf"):
        flag = f"--length_penalty={penalty}"
        fails(call("generate.py", workdir, flag, input="ei"), 2, "length_penalty")
        fails(call("evaluate.py", workdir, flag), 2, "length_penalty")
    fails(call("evaluate.py", workdir, "--checkpoint=last:9"), 2, "keep_last")
    fails(call("evaluate.py", workdir, "--source=x"), 2, "--reference")

    other = tmp_path / "run"
    shutil.copytree(trained, other)
    tokenizer = (other / "tokenizer.json").read_text("utf-8")
    (other / "tokenizer.json").write_text(tokenizer.replace("Ġzwei", "Ġdrie"), "utf-8")
    fails(call("generate.py", f"--workdir={other}", input="ei"), 2, "tokenizer")
