"""Runs that begin from another: what is taken over, what is refused, what stays as it was."""

import functools
import json
import re
import shutil
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from tests import runs
from tests.common import assert_trees_close, assert_trees_equal
from transformer.errors import ConfigError, WorkdirError
from transformer.fields import require_allowed
from transformer.runs.opening import open_run
from transformer.tasks.language_modeling import LanguageModeling
from transformer.tasks.parts.protocol import Shown
from transformer.training import finishing
from transformer.training.experiment import prepare
from transformer.training.initialization import (
    Heads,
    Initialization,
    check_same_model,
    heads_of,
    initialized,
)
from transformer.training.loop import train
from transformer.training.lora import ADAPTERS, merged
from transformer.training.parameters import read_parameters
from transformer.training.saved_runs import read_config
from transformer.training.sections import owner, section
from transformer.training.selection import by_path

# --------------------------------------------------------------------- parameters alone


def tree(**shapes):
    """Parameters of a module each, of numbers that tell them apart."""
    return {
        name: {"kernel": jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape) + place}
        for place, (name, shape) in enumerate(shapes.items())
    }


SAVED = tree(embedding=(5, 2), blocks=(2, 2), output=(2, 3), pooler=(2, 2))


def test_all_that_fits_is_loaded():
    new = jax.tree.map(jnp.zeros_like, SAVED)
    params, report = initialized(new, SAVED, Initialization(workdir="runs/a", fresh=""))
    assert_trees_equal(params, SAVED)
    assert report.splitlines() == [
        "Parameters from runs/a:",
        "  loaded      4  blocks (1), embedding (1), output (1), pooler (1)",
        "  new         0  -",
        "  not used    0  -",
    ]


HEADS = Heads(modules=("output", "pooler", "masked_token"), outputs=("output",))


def test_heads_of_another_shape_are_new_and_those_that_the_run_lacks():
    saved = {**SAVED, "masked_token": {"bias": jnp.ones(5), "norm": {"scale": jnp.ones(2)}}}
    del saved["pooler"]
    new = jax.tree.map(jnp.zeros_like, tree(embedding=(5, 2), blocks=(2, 2), pooler=(2, 2)))
    # Of another shape than that of the run, as there are other classes.
    new["output"] = {"kernel": jnp.full((2, 7), 0.5)}
    params, report = initialized(new, saved, Initialization(workdir="runs/a"), heads=HEADS)
    assert_trees_equal(params["embedding"], SAVED["embedding"])
    assert_trees_equal(params["blocks"], SAVED["blocks"])
    assert_trees_equal(params["output"], new["output"])
    assert_trees_equal(params["pooler"], new["pooler"])
    assert report.splitlines()[1:] == [
        "  loaded      2  blocks (1), embedding (1)",
        "  new         2  pooler (1), output (1)",
        "  not used    3  output (1), masked_token (2)",
        "  output is new: that of the run has another shape.",
    ]


@pytest.mark.parametrize("difference", ["", "the labels of the run are others"])
def test_outputs_are_new_where_labels_differ(difference):
    new = jax.tree.map(jnp.zeros_like, SAVED)
    heads = HEADS._replace(difference=difference)
    params, report = initialized(new, SAVED, Initialization(workdir="runs/a"), heads=heads)
    expected = {**SAVED, "output": new["output"]} if difference else SAVED
    assert_trees_equal(params, expected)
    assert ("output is new: the labels of the run are others." in report) == bool(difference)
    # Whoever says what is to be made anew, and what not, is heard.
    taken, _ = initialized(new, SAVED, Initialization(fresh=""), heads=heads)
    assert_trees_equal(taken, SAVED)
    pooled, _ = initialized(new, SAVED, Initialization(fresh="^pooler/"), heads=heads)
    assert_trees_equal(pooled, {**SAVED, "pooler": new["pooler"]})


def test_a_head_is_loaded_whole_or_not_at_all():
    """Of a deeper decoder the first layers say nothing."""
    saved = {**SAVED, "decoder": {f"layer_{n}": tree(up=(2, 2)) for n in range(3)}}
    for depth in (2, 3, 4):
        new = {**SAVED, "decoder": {f"layer_{n}": tree(up=(2, 2)) for n in range(depth)}}
        new = jax.tree.map(jnp.zeros_like, new)
        params, _ = initialized(new, saved, Initialization(), heads=Heads(modules=("decoder",)))
        expected = saved if depth == 3 else new
        assert_trees_equal(params["decoder"], expected["decoder"])


def test_each_stack_keeps_its_own_layout():
    """The decoder of patches is unrolled even where the encoder is scanned."""
    layers = {f"layer_{n}": tree(up=(2, 2)) for n in range(2)}
    saved = {**SAVED, "blocks": layers, "decoder": {"blocks": layers}}
    new = {**saved, "blocks": {"layers": tree(up=(2, 2, 2))}}
    new = jax.tree.map(jnp.zeros_like, new)
    params, report = initialized(new, saved, Initialization(), heads=Heads(modules=("decoder",)))
    assert_trees_equal(params["decoder"], saved["decoder"])
    assert np.all(
        params["blocks"]["layers"]["up"]["kernel"][1] == layers["layer_1"]["up"]["kernel"]
    )
    assert "new         0" in report


def test_a_missing_parameter():
    new = {**SAVED, "final_norm": {"scale": jnp.ones(2)}}
    with pytest.raises(WorkdirError, match=r"of runs/a do not fit:\n  final_norm/scale \[2\] is n"):
        initialized(new, SAVED, Initialization(workdir="runs/a"))
    params, _ = initialized(new, SAVED, Initialization(new="^final_norm/"))
    assert_trees_equal(params["final_norm"], new["final_norm"])


def test_nothing_may_be_new():
    saved = {name: SAVED[name] for name in ("embedding", "blocks", "pooler")}
    with pytest.raises(WorkdirError, match=r"output/kernel \[2, 3\] is not in the run"):
        initialized(SAVED, saved, Initialization(workdir="runs/a", fresh="", new=""))


def test_other_shapes_and_dtypes():
    new = {**SAVED, **tree(embedding=(6, 2))}
    new["blocks"] = {"kernel": jnp.ones((2, 2), jnp.bfloat16)}
    with pytest.raises(WorkdirError) as error:
        initialized(new, SAVED, Initialization(workdir="runs/a"))
    assert "\n  embedding/kernel is float32[5, 2] in the run, float32[6, 2] here\n" in str(
        error.value
    )
    assert "\n  blocks/kernel is float32[2, 2] in the run, bfloat16[2, 2] here\n" in str(
        error.value
    )
    assert "config.init.new or config.init.fresh" in str(error.value)
    params, _ = initialized(new, SAVED, Initialization(fresh="^(embedding|blocks)/"))
    assert_trees_equal(params, {**new, "output": SAVED["output"], "pooler": SAVED["pooler"]})


def test_a_run_of_which_nothing_is_wanted():
    with pytest.raises(WorkdirError, match=r"runs/a do not fit:\n  none of them is wanted here"):
        initialized(SAVED, SAVED, Initialization(workdir="runs/a", fresh="."))


@pytest.mark.parametrize("field", ["fresh", "new"])
def test_patterns_that_are_none(field):
    with pytest.raises(ConfigError, match=rf"config\.init\.{field} is '\*'"):
        require_allowed("init", Initialization(**{field: "*"}))


SIZES = {"vocab_size": 11, "num_heads": 1, "width": 4}
PAIR = {"num_encoder_layers": 1, "num_decoder_layers": 1, "feed_forward_width": 4}
TOKENS = jnp.zeros((1, 4), jnp.int32)


@pytest.mark.parametrize(
    ("name", "fields", "part"),
    [
        ("t5", {**PAIR, "tie_embeddings": False}, "decoder"),
        ("t5", {**PAIR, "tie_embeddings": False}, "output"),
        ("vaswani", PAIR, "decoder"),
        ("vaswani", PAIR, "encoder"),
        ("gpt", {"num_layers": 1, "context": 4, "tie_embeddings": False}, "output"),
        ("gpt", {"num_layers": 1, "context": 4, "tie_embeddings": False}, "final_norm"),
        ("bert", {"num_layers": 1, "context": 4, "num_outputs": 2}, "embedding_norm"),
    ],
)
def test_a_run_that_lacks_a_part_of_the_body(name, fields, part):
    """A decoder is one, and so is an output layer of the vocabulary."""
    model = owner("model", name)(**SIZES, **fields)
    inputs = (TOKENS, TOKENS) if name in ("t5", "vaswani") else (TOKENS,)
    init = functools.partial(model.init, method="classify" if name == "bert" else "__call__")
    shapes = nn.meta.unbox(jax.eval_shape(init, jax.random.key(0), *inputs))["params"]
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    config = ConfigDict(
        {"model": {"name": name}, "task": {"name": "a"}, "init": {"workdir": "runs/a"}}
    )
    heads = heads_of(config, config, None)
    _, report = initialized(params, params, Initialization(workdir="runs/a"), heads=heads)
    assert "new         0" in report
    saved = {module: tree for module, tree in params.items() if module != part}
    with pytest.raises(
        WorkdirError, match=rf"of runs/a do not fit:\n  {part}/.* is not in the run"
    ):
        initialized(params, saved, Initialization(workdir="runs/a"), heads=heads)


@pytest.mark.parametrize(
    ("job", "labels", "names", "difference"),
    [
        ("tagging", ["a", "b"], ("a", "b"), ""),
        ("tagging", ["a", "b"], ("b", "a"), "the labels of the run are others"),
        ("tagging", ["a", "b"], ("a", "b", "c"), "the labels of the run are others"),
        ("tagging", None, ("a", "b"), ""),
        ("tagging", None, None, ""),
        ("masked_lm", ["a", "b"], ("a", "b"), "the job of the run is masked_lm"),
    ],
)
def test_what_makes_labels_others(tmp_path, job, labels, names, difference):
    if labels is not None:
        (tmp_path / "labels.json").write_text(json.dumps(labels))
    source = ConfigDict({"task": {"name": job}})
    config = ConfigDict(
        {
            "model": {"name": "bert"},
            "task": {"name": "tagging"},
            "init": {"workdir": str(tmp_path)},
        }
    )
    found = heads_of(config, source, names)
    assert found.difference == difference
    assert "output" in found.outputs
    assert set(found.outputs) < set(found.modules)


# -------------------------------------------------------------------------------- models


def model_config(name="gpt", **fields):
    model = section("model", name, num_layers=2, width=8, num_heads=2, **fields)
    return ConfigDict({"model": model, "init": section("init", workdir="runs/a")})


def test_what_does_not_change_parameters_may_differ():
    config = model_config(
        dropout_rate=0.5, compute={"dtype": "bfloat16", "remat": "full"}, vocab_size=9
    )
    check_same_model(config, model_config())


def test_what_parameters_began_with_may_differ():
    made = model_config("decision_transformer", init_scale=0.1)
    check_same_model(made, model_config("decision_transformer"))
    config = ConfigDict({"init": section("init", workdir="runs/a")})
    config.model = section("model", "t5", position_init_scale=4.0)
    source = ConfigDict({"model": section("model", "t5")})
    check_same_model(config, source)


def test_another_model_is_told_in_flags(monkeypatch):
    source = model_config(tie_embeddings=False, activation="relu", feed_forward_width=24)
    config = model_config()
    with pytest.raises(ConfigError, match="runs/a, is another than") as error:
        check_same_model(config, source)
    pasted = re.findall(r"--config\.\S+", str(error.value))
    assert len(pasted) == 3
    monkeypatch.setattr(sys, "argv", ["train.py", *pasted])
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values)
    values(sys.argv)
    check_same_model(values.config, source)


def test_no_flag_says_none():
    with pytest.raises(ConfigError) as error:
        check_same_model(model_config(feed_forward_width=24, context=4), model_config())
    assert str(error.value).endswith(
        "leave out config.model.feed_forward_width and add --config.model.context=1024"
    )


def test_a_model_of_another_kind():
    with pytest.raises(ConfigError, match=r"runs/a, a run of the model bert.*is gpt"):
        check_same_model(model_config(), model_config("bert"))


# ---------------------------------------------------------------------------------- runs

TEXT = "the quick brown fox jumps over the lazy dog\n" * 12
STEPS = 2


def config_of(folder, *, text=TEXT, **sections):
    """A run of two steps, both saved; `sections` are changes to its config."""
    path = folder / "text.txt"
    path.write_text(text, "utf-8")
    config = ConfigDict()
    fields = {
        "model": {"num_layers": 1, "num_heads": 1, "width": 4, "context": 4, "qkv_bias": False},
        "task": {"path": str(path), "context": 4, "batch_size": 2, "sample_length": 1},
        "optimizer": {"algorithm": "lion", "warmup": "0 steps", "schedule": "constant"},
        "train": {
            "duration": f"{STEPS} steps",
            "save_every": "1",
            "evaluate_every": "100",
            "log_every": "1",
            "validation_batches": 1,
            "keep_last": STEPS,
            "tensorboard": False,
        },
        "mesh": {},
        "init": {},
        "lora": {},
    }
    names = {"model": "gpt", "task": "language_modeling"}
    for kind, values in fields.items():
        config[kind] = section(kind, names.get(kind), **values | sections.get(kind, {}))
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("initialization")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        # Nobody looks at their curves and samples.
        patch.setattr(finishing, "write_curves", lambda workdir: None)
        patch.setattr(LanguageModeling, "show", lambda *_: Shown("", {}))
        yield folder


@pytest.fixture(scope="module")
def source(folder):
    """A run that keeps an average."""
    code, _ = train(config_of(folder, train={"ema_decay": 0.5}), folder / "source")
    assert code == 0
    return folder / "source"


saved = functools.cache(runs.saved)
read = functools.cache(read_parameters)


def test_a_run_that_keeps_an_average_gives_it(source):
    found = read(source, "last")
    assert found.step == STEPS
    state = saved(source, STEPS)
    assert_trees_equal(found.params, state["average"])
    assert np.any(found.params["final_norm"]["scale"] != state["params"]["final_norm"]["scale"])


def test_the_mean_of_checkpoints(source):
    found = read(source, "last:2")
    assert found.step == STEPS
    steps = [read(source, str(step)).params for step in (STEPS - 1, STEPS)]
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *steps)
    assert_trees_close(found.params, expected, rtol=1e-6)
    assert np.any(found.params["final_norm"]["scale"] != steps[1]["final_norm"]["scale"])


def begin_and_resume(folder, source, name, **sections):
    """A run from `source`, once in one go and once in two, of which the second lacks the source.

    Returns:
        Both folders.
    """
    copy = folder / f"source_of_{name}"
    shutil.copytree(source, copy)
    config = config_of(folder, init={"workdir": str(copy), "checkpoint": "last"}, **sections)
    once, twice = folder / f"{name}_once", folder / f"{name}_twice"
    shared = runs.SharedPrograms()
    assert train(config, once, shared=shared)[0] == 0
    config.train.duration = "1 steps"
    assert train(config, twice, shared=shared)[1]["step"] == 1
    shutil.rmtree(copy)
    config.train.duration = f"{STEPS} steps"
    assert train(config, twice, shared=shared)[1]["step"] == STEPS
    return once, twice


@pytest.fixture(scope="module")
def adapted(folder, source):
    lora = {"rank": 2, "targets": "feed_forward/.*/kernel", "trained": "^final_norm/"}
    return begin_and_resume(folder, source, "lora", lora=lora)


@pytest.fixture(scope="module")
def frozen(folder, source):
    return begin_and_resume(
        folder,
        source,
        "frozen",
        optimizer={"frozen": "^(token_embedding|blocks)/"},
        train={"ema_decay": 0.5},
    )


def logged(workdir):
    """The metrics of training, which do not depend on when a run was stopped."""
    return [line for line in runs.logged(workdir) if line["split"] == "train"]


@pytest.mark.parametrize("kind", ["adapted", "frozen"])
def test_resumed_without_the_source_is_uninterrupted(request, kind):
    once, twice = request.getfixturevalue(kind)
    states = [saved(workdir, STEPS) for workdir in (once, twice)]
    assert set(states[0]) == {"params", "training"} | ({"average"} if kind == "frozen" else set())
    assert_trees_equal(*states)
    assert len(logged(once)) == STEPS
    assert logged(once) == logged(twice)


def test_the_frozen_keep_the_bits_of_the_source(source, frozen):
    loaded = by_path(read(source, "last").params)
    state = saved(frozen[0], STEPS)
    for item in ("params", "average"):
        for path, leaf in by_path(state[item]).items():
            same = path.startswith(("token_embedding/", "blocks/"))
            assert bool(np.all(leaf == loaded[path])) == same, (item, path)
    moments = {leaf.shape for leaf in jax.tree.leaves(state["training"]["optimizer"])}
    assert moments == {(), (4,), (4, 4)}


def test_the_average_begins_with_what_was_loaded(source, frozen):
    loaded = read(source, "last").params
    first = saved(frozen[0], 1)
    expected = jax.tree.map(lambda a, b: (a + b) / 2, loaded, first["params"])
    assert_trees_close(first["average"], expected, rtol=1e-5, atol=1e-7)


def test_beside_adapters_parameters_keep_the_bits_of_the_source(source, adapted):
    loaded = by_path(read(source, "last").params)
    state = saved(adapted[0], STEPS)
    flat = by_path(state["params"])
    assert {path for path in loaded if np.any(flat[path] != loaded[path])} == {
        "final_norm/scale",
        "final_norm/bias",
    }
    adapters = {path: leaf for path, leaf in flat.items() if path.startswith(f"{ADAPTERS}/")}
    assert len(adapters) == 4
    assert all(np.any(leaf != 0) for leaf in adapters.values())


def test_a_run_with_adapters_gives_merged_parameters(adapted):
    lora = prepare(read_config(adapted[0]), adapted[0]).lora
    expected = merged(saved(adapted[0], STEPS)["params"], lora)
    assert ADAPTERS not in expected
    for run in (read(adapted[0], "last"), open_run(adapted[0], "last")):
        assert_trees_equal(run.params, expected)
    params, report = initialized(
        jax.tree.map(jnp.zeros_like, expected),
        read(adapted[0], "last").params,
        Initialization(fresh=""),
    )
    assert_trees_equal(params, expected)
    assert "new         0" in report


def test_the_tokenizer_is_that_of_the_source(folder, source):
    config = config_of(folder, text="the dog\n" * 60, init={"workdir": str(source)})
    experiment = prepare(config, folder / "not_there")
    expected = (source / "tokenizer.json").read_text("utf-8")
    assert experiment.data.tokenizer.identity() == expected
    assert experiment.model.vocab_size == len(set(TEXT))
    config.model.width = 8
    with pytest.raises(ConfigError, match=r"add --config\.model\.width=4"):
        prepare(config)


def test_a_table_keeps_entries_that_no_token_has(folder, source):
    copy = folder / "larger"
    copy.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(source / name, copy)
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(re.sub(r'"vocab_size": \d+', '"vocab_size": 64', text))
    assert prepare(config_of(folder, init={"workdir": str(copy)})).model.vocab_size == 64


def test_a_garbled_tokenizer_of_the_source(folder, source):
    """It has as many tokens, so nothing else would notice."""
    copy = folder / "tampered"
    shutil.copytree(source, copy)
    text = (copy / "tokenizer.json").read_text("utf-8")
    swapped = text.replace('"q":', '"?":').replace('"k":', '"q":').replace('"?":', '"k":')
    assert swapped != text
    (copy / "tokenizer.json").write_text(swapped, "utf-8")
    config = config_of(folder, init={"workdir": str(copy)}, train={"ema_decay": 0.5})
    with pytest.raises(WorkdirError, match=r"tampered/tokenizer.json is not what the checkpoint"):
        train(config, folder / "child_of_tampered")


def test_a_source_that_is_no_run(folder):
    config = config_of(folder, init={"workdir": str(folder / "nothing")})
    with pytest.raises(WorkdirError, match=r"nothing is not the folder of a run"):
        prepare(config)
