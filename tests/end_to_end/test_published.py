"""Published weights come in, are trained with adapters on own text, and go out again."""

import json
import shutil

import numpy as np
import pytest

from tests.end_to_end.conftest import ROOT, call, nothing_shown, run
from tests.tokenizers import make_text_tokenizer
from transformer.interop.formats.safetensors import read_safetensors, write_safetensors
from transformer.training.metrics import read_metrics

pytest.importorskip("safetensors", reason="weights are read from its files")

TEXT = "A line of text that comes again and again.\n"
VOCABULARY = len(set(TEXT))
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
SHAPES = {
    "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (8, 16),
    "self_attn.v_proj": (8, 16),
    "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (24, 16),
    "mlp.up_proj": (24, 16),
    "mlp.down_proj": (16, 24),
    "input_layernorm": (16,),
    "post_attention_layernorm": (16,),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A Llama of random numbers as its publisher would lay it down, in two files."""
    folder = tmp_path_factory.mktemp("published") / "llama"
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {
        f"model.layers.{layer}.{name}.weight": rng.normal(size=shape, scale=0.1)
        for layer in range(2)
        for name, shape in SHAPES.items()
    }
    arrays["model.embed_tokens.weight"] = rng.normal(size=(VOCABULARY, 16))
    arrays["model.norm.weight"] = np.ones(16)
    arrays["lm_head.weight"] = rng.normal(size=(VOCABULARY, 16), scale=0.1)
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    names = sorted(arrays)
    where = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(names)}
    for file in set(where.values()):
        part = {name: arrays[name] for name in names if where[name] == file}
        write_safetensors(part, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(make_text_tokenizer("character", TEXT, 0).identity())
    return folder


@pytest.fixture(scope="module")
def imported(published):
    workdir = published.parent / "imported"
    found = call("import_hf.py", f"--source={published}", f"--workdir={workdir}", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["not_used"] == []
    return workdir


def test_adapters_on_own_text_and_out_again(published, imported):
    folder = published.parent
    (folder / "mine.txt").write_text(TEXT * 60)
    with nothing_shown():
        found = call(
            "train.py",
            f"--config={ROOT / 'configs' / 'finetune.py'}:{imported}",
            f"--workdir={folder / 'adapted'}",
            f"--config.task.path={folder / 'mine.txt'}",
            "--config.task.context=32",
            "--config.task.batch_size=4",
            "--config.train.duration=12 steps",
            "--config.train.log_every=3 steps",
            "--config.train.tensorboard=False",
            "--config.optimizer.warmup=2 steps",
            "--config.optimizer.learning_rate=0.03",
        )
    assert found.returncode == 0, found.stderr
    losses = [row["loss"] for row in read_metrics(folder / "adapted") if row["split"] == "train"]
    assert losses[-1] < losses[0]
    for workdir, target in (("imported", "same"), ("adapted", "merged")):
        flags = (f"--workdir={folder / workdir}", f"--target={folder / target}")
        found = call("export_hf.py", *flags, "--json")
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)["num_arrays"] == 21
    before, same = read_safetensors(published), read_safetensors(folder / "same")
    merged = read_safetensors(folder / "merged")
    assert before.keys() == same.keys() == merged.keys()
    changed = {name for name in before if not np.array_equal(merged[name], before[name])}
    # Queries and values have adapters; nothing else was trained.
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}
    for name, array in before.items():
        np.testing.assert_array_equal(same[name], array)
    # The merged model is a published one again, and writes what the adapted one writes.
    again = call("import_hf.py", f"--source={folder / 'merged'}", f"--workdir={folder / 'again'}")
    assert again.returncode == 0, again.stderr
    write = ("--prompt=A line", "--temperature=0", "--max_new_tokens=20")
    texts = [call("generate.py", f"--workdir={folder / w}", *write) for w in ("adapted", "again")]
    assert texts[0].stdout == texts[1].stdout
    assert len(texts[0].stdout.strip()) > 20


def damaged(published, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(published, folder)
    return folder


def truncate(folder):
    file = folder / "model-1.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_shard(folder):
    (folder / "model-0.safetensors").unlink()


def drop_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def other_architecture(folder):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "falcon"}))


def pickles(folder):
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, ["model-1.safetensors", "cannot be read as safetensors"]),
        (drop_shard, ["model-0.safetensors"]),
        (drop_tokenizer, ["tokenizer.json", "--tokenizer"]),
        (other_architecture, ["'falcon'", "gpt2, llama, mistral", "gemma2"]),
        (pickles, ["pytorch_model.bin", "cannot be read as an archive of torch.save"]),
    ],
)
def test_nothing_is_left_of_what_cannot_be_imported(published, tmp_path, damage, said):
    folder = damaged(published, tmp_path)
    damage(folder)
    found = call("import_hf.py", f"--source={folder}", f"--workdir={tmp_path / 'run'}")
    assert found.returncode == 2
    assert found.stdout == ""
    for part in said:
        assert part in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_a_full_disk_leaves_nothing(published, tmp_path):
    """Writing stops at a size of files that the checkpoint exceeds."""
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "limited"]
    flags = (f"--source={published}", f"--workdir={tmp_path / 'run'}")
    found = run("import_hf.py", *flags, prefix=limited)
    assert found.returncode not in (0, 2)
    assert "Traceback" not in found.stderr
    assert "Is the disk full?" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_targets_that_hold_something_are_left_alone(imported, tmp_path):
    (tmp_path / "note").write_text("mine")
    found = call("export_hf.py", f"--workdir={imported}", f"--target={tmp_path}")
    assert found.returncode == 2
    assert "not an empty folder" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
