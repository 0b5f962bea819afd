import dataclasses
import importlib.util
import math
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from transformer import models
from transformer.composition import config_fields, value_of
from transformer.data.images.batches import Augmentation
from transformer.data.images.preparation import Preparation
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.errors import ConfigError
from transformer.fields import checked, declared, require_allowed, unknown_name
from transformer.limits import (
    Count,
    Part,
    PartOrAll,
    PartOrNone,
    Positive,
    Seed,
    Share,
    TokenIds,
    Weight,
)
from transformer.models.gpt import GPT
from transformer.nn.compute import Compute
from transformer.ops.search_rules import Search
from transformer.sharding import Devices
from transformer.tasks.language_modeling import LanguageModeling
from transformer.training.durations import Clock, Interval, Warmup
from transformer.training.optimizers import Optimizer
from transformer.training.sections import (
    SECTIONS,
    build,
    check_sections,
    choices,
    owner,
    saved_config,
    section,
)

# Each section by the name that messages give it, with its owner; those inside of others, too.
PLACES = [
    *((kind, owner(kind, name)) for kind in ("model", "task") for name in choices(kind)),
    *((kind, owner(kind, None)) for kind in ("optimizer", "train", "mesh", "init", "lora")),
    ("task.search", Search),
    ("task.augmentation", Augmentation),
    ("task.preparation", Preparation),
]
CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))


def changed(kind, name=None, **values):
    """A section as it may arrive from a file: nothing has checked it yet."""
    arguments = (kind, name) if name else (kind,)
    return ConfigDict({**dict(section(*arguments)), **values})


def test_a_section_holds_exactly_the_fields_of_its_owner():
    assert set(section("optimizer")) == {field.name for field in dataclasses.fields(Optimizer)}
    model = section("model", "gpt", width=12)
    assert set(model) == {"name", *config_fields(GPT)}
    assert model.width == 12
    assert model.num_layers == GPT().num_layers


def described_fields(belongs):
    for name, field in declared(belongs).items():
        yield name, field
        if field.entry is not None:
            yield f"an entry of {name}", field.entry


@pytest.mark.parametrize(("where", "belongs"), PLACES, ids=str)
def test_every_field_declares_its_limits(where, belongs):
    """A number, or text, of which nobody has said what it may be."""
    fields = list(described_fields(belongs))
    bases = {field.base for _, field in fields if not dataclasses.is_dataclass(field.base)}
    assert bases <= {int, float, bool, str, tuple}
    open_fields = [name for name, x in fields if x.base in (int, float, str) and not x.limits]
    assert open_fields == []


@pytest.mark.parametrize(("where", "belongs"), PLACES, ids=str)
def test_defaults_are_within_their_limits(where, belongs):
    for name, field in declared(belongs).items():
        default = config_fields(belongs)[name].default
        assert checked(f"config.{where}.{name}", default, field) == default


@pytest.mark.parametrize(("where", "belongs"), PLACES, ids=str)
def test_limits_keep_out_what_no_field_may_have(where, belongs):
    wrong = {int: (-(2**70), 10**20, True, 0.5), float: (math.nan, math.inf, -math.inf, 10**400)}
    for name, field in described_fields(belongs):
        for value in wrong.get(field.base, ()):
            with pytest.raises(ConfigError, match=rf"^config\.{where}\.{name} is .*: .+\.$"):
                checked(f"config.{where}.{name}", value, field)


@pytest.mark.parametrize(
    ("annotation", "allowed", "refused"),
    [
        (Count, (1, 2**31 - 1), {0: "at least 1.", 2**31: "from 1 to 2147483647."}),
        (Seed, (0, 2**32 - 1), {-1: "from 0 to 4294967295.", 2**32: "from 0 to 4294967295."}),
        (Devices, (-1, 1, 8), {0: "-1 or from 1 to 1048576.", -2: "-1 or from 1 to 1048576."}),
        (Part, (0.5,), {0.0: "above 0, below 1.", 1.0: "above 0, below 1."}),
        (PartOrNone, (0.0, 0.5), {0.999999999: "0 or more, below 1.", 1e-40: "below 1."}),
        (PartOrAll, (1.0,), {0.0: "above 0, 1 at most.", 1.5: "above 0, 1 at most."}),
        (Share, (0.0, 1.0), {-0.1: "from 0 to 1.", 1.1: "from 0 to 1."}),
        (Positive, (1e-30, 3e38), {0.0: "above 0, a number that float32 holds."}),
        (Weight, (0.0, 3e38), {1e39: "0 or more, a number that float32 holds."}),
        (TokenIds, ((), (3, 4)), {(3, -1): "is (3, -1), of which one is -1: from 0 to 16777215."}),
        (Count | None, (None, 3), {0: "at least 1, or nothing."}),
        (Interval, ("1 step", "5%"), {"0 steps": "give more than 0, one step at least."}),
        (Warmup, ("0", "100%"), {"200%": "of the run, 100% at most."}),
    ],
    ids=str,
)  # fmt: skip
def test_limits(annotation, allowed, refused):
    kind = dataclasses.make_dataclass("Kind", [("x", annotation, None)])
    field = declared(kind)["x"]
    for value in allowed:
        assert checked("config.x", value, field) == value
    for value, said in refused.items():
        with pytest.raises(ConfigError) as error:
            checked("config.x", value, field)
        assert str(error.value).startswith("config.x is ")
        assert str(error.value).endswith(said)


def test_long_values_do_not_make_long_messages():
    field = declared(GPT)["num_layers"]
    for value in (10**5000, "9" * 10**6):
        with pytest.raises(ConfigError) as error:
            checked("config.model.num_layers", value, field)
        assert len(str(error.value)) < 300


def test_limits_change_nothing_for_python():
    assert GPT(num_layers=0).num_layers == 0
    with pytest.raises(ConfigError, match=r"config\.model\.num_layers is 0: from 1 to 1000"):
        require_allowed("model", GPT(num_layers=0))


def test_flax_fields_are_no_config():
    assert not {"parent", "name"} & set(config_fields(GPT))


@pytest.mark.parametrize("kind", ["optimizer", "train", "mesh", "init", "lora"])
def test_defaults_build(kind):
    built = build(kind, section(kind))
    assert built == type(built)()


def test_built_values_are_those_of_the_section():
    assert build("model", section("model", "gpt", width=24)) == GPT(width=24)
    task = build("task", section("task", "language_modeling", context=3))
    assert task == LanguageModeling(context=3)


def test_optional_fields_are_placeholders():
    model = section("model", "gpt")
    assert model.vocab_size is None
    model.vocab_size = 7
    assert build("model", model).vocab_size == 7
    with pytest.raises(TypeError):
        model.vocab_size = "seven"


def test_an_optional_field_given_a_value_can_still_be_overridden():
    model = section("model", "gpt", vocab_size=5)
    model.vocab_size = 7
    assert build("model", model).vocab_size == 7


@pytest.mark.parametrize("make", [section, changed])
def test_int_is_accepted_for_float(make):
    built = build("optimizer", make("optimizer", learning_rate=1))
    assert built.learning_rate == 1.0
    assert type(built.learning_rate) is float


@pytest.mark.parametrize("make", [section, changed])
def test_unknown_key_names_the_nearest(make):
    with pytest.raises(ConfigError, match=r'optimizer has no "learning_rat".*"learning_rate"'):
        build("optimizer", make("optimizer", learning_rat=1.0))


def test_missing_key_is_named():
    config = section("optimizer")
    del config.beta1
    with pytest.raises(ConfigError, match=r"config\.optimizer\.beta1 is missing"):
        build("optimizer", config)


@pytest.mark.parametrize(
    ("kind", "name", "values", "message"),
    [
        ("optimizer", None, {"beta1": "0.9"}, r"beta1 is '0\.9' \(str\): expected float"),
        ("optimizer", None, {"beta1": (0.5,)}, "tuple.*expected float"),
        ("train", None, {"seed": 1.0}, r"seed is 1\.0 \(float\): expected int"),
        ("train", None, {"seed": True}, r"seed is True \(bool\): expected int"),
        ("train", None, {"duration": 100}, r"duration is 100 \(int\): expected str"),
        ("train", None, {"seed": None}, "expected int"),
        ("model", "gpt", {"vocab_size": 3.5}, "vocab_size.*expected int or nothing"),
        ("model", "gpt", {"compute": {"scan_layers": 1}}, "compute.scan_layers.*expected bool"),
    ],
    ids=str,
)
def test_wrong_types_are_named(kind, name, values, message):
    with pytest.raises(ConfigError, match=message):
        build(kind, changed(kind, name, **values))


def test_wrong_type_in_a_config_file_is_named():
    with pytest.raises(ConfigError, match="learning_rate"):
        build("optimizer", section("optimizer", learning_rate="fast"))


def test_values_are_checked_by_their_owner():
    with pytest.raises(ConfigError, match="num_heads"):
        build("model", section("model", "gpt", width=10, num_heads=3))


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        ("optimizer", {"algorithm": "adam"}, "algorithm"),
        ("optimizer", {"schedule": "cosin"}, "schedule"),
        ("optimizer", {"beta2": 1.0}, "beta2"),
        ("train", {"microbatches": 0}, "microbatches"),
        ("train", {"ema_decay": 1.0}, "ema_decay"),
        ("train", {"ema_decay": 0.999999999}, "ema_decay"),
        ("train", {"ema_decay": float("nan")}, "ema_decay"),
        ("train", {"validation_batches": 0}, "validation_batches"),
        ("train", {"validation_batches": -3}, "validation_batches"),
        ("train", {"keep_last": 0}, "keep_last"),
        ("train", {"steps_per_dispatch": 0}, "steps_per_dispatch"),
        ("train", {"duration": "0 epochs"}, "duration"),
        ("train", {"log_every": "0"}, "log_every"),
        ("train", {"evaluate_every": "0%"}, "evaluate_every"),
        ("train", {"save_every": "-5 steps"}, "save_every"),
        ("train", {"save_every": "1e999 steps"}, "save_every"),
        ("optimizer", {"learning_rate": -1e-3}, "learning_rate"),
        ("mesh", {"fsdp": 0}, "fsdp"),
        ("mesh", {"data": 0}, "data"),
    ],
    ids=str,
)
def test_impossible_values(kind, values, field):
    with pytest.raises(ConfigError, match=rf"config\.{kind}\.{field}"):
        build(kind, section(kind, **values))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"context": 0}, "context"),
        ({"batch_size": 0}, "batch_size"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
    ],
    ids=str,
)
def test_impossible_tasks(values, field):
    with pytest.raises(ConfigError, match=rf"config\.task\.{field}"):
        build("task", section("task", "language_modeling", **values))


@pytest.mark.parametrize(("kind", "near"), [("model", "gpt"), ("task", "language_modeling")])
def test_unknown_names(kind, near):
    assert near in choices(kind)
    with pytest.raises(ConfigError, match=f'config.{kind}.name has no "{near}x".*"{near}"'):
        section(kind, f"{near}x")
    with pytest.raises(ConfigError, match=rf"config\.{kind}\.name"):
        build(kind, ConfigDict({}))


def test_every_choice_has_an_owner():
    for kind in ("model", "task"):
        for name in choices(kind):
            assert section(kind, name).name == name


def test_unknown_name_without_a_near_one_lists_all():
    assert unknown_name("here", "zzz", ["beta", "alpha"]) == (
        'here has no "zzz": choose from alpha, beta.'
    )


def test_sections():
    config = ConfigDict({name: ConfigDict() for name in SECTIONS})
    check_sections(config)
    config.optimiser = ConfigDict()
    with pytest.raises(ConfigError, match=r'"optimiser".*"optimizer"'):
        check_sections(config)
    del config.optimiser, config.task
    with pytest.raises(ConfigError, match=r"config\.task is missing"):
        check_sections(config)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_learning_rates_reach_their_peak_also_on_little_data(path):
    if path.stem == "finetune":
        return  # Its variants are folders.
    config = load(path).get_config()
    clock = Clock(examples_per_step=1024.0, tokens_per_step=1e6, examples_per_epoch=5_000)
    total = clock.steps(config.train.duration, key="train.duration")
    assert clock.steps(config.optimizer.warmup, key="optimizer.warmup", total=total) <= total / 2


VARIANTS = [
    (path, variant)
    for path in CONFIGS
    # Its variants are folders: see tests/end_to_end/test_published.py.
    if path.stem != "finetune"
    for variant in ("", *getattr(load(path), "VARIANTS", {}))
]


@pytest.mark.parametrize(
    ("path", "variant"), VARIANTS, ids=lambda x: x.stem if isinstance(x, Path) else x
)
def test_every_config_builds(path, variant):
    module = load(path)
    assert f"--config=configs/{path.name}" in module.__doc__
    config = module.get_config(variant)
    check_sections(config)
    for kind in SECTIONS:
        build(kind, config.copy_and_resolve_references()[kind])


@pytest.mark.parametrize(("name", "answer"), [("gpt2", "no variants"), ("llama", "llama3-8b")])
def test_variants_that_there_are_not(name, answer):
    (path,) = (path for path in CONFIGS if path.stem == name)
    with pytest.raises(ConfigError, match=answer):
        load(path).get_config("llama3-8")


def test_messages_name_fields_that_there_are():
    """Each `config.SECTION.FIELD` in the package."""
    known = {
        kind: set() for kind in ("model", "task", "optimizer", "train", "mesh", "init", "lora")
    }
    for kind in known:
        for name in choices(kind) if kind in ("model", "task") else (None,):
            known[kind] |= {"name", *config_fields(owner(kind, name))}
    written = re.compile(rf"config\.({'|'.join(known)})\.([a-z_0-9]+)(?!\w*\()")
    root = Path(__file__).parent.parent
    found = {
        (kind, field, path.name)
        for folder in ("transformer", "scripts")
        for path in (root / folder).rglob("*.py")
        for kind, field in written.findall(path.read_text("utf-8"))
    }
    assert len(found) > 100
    assert [one for one in found if one[1] not in known[one[0]]] == []


def test_a_plugin_whose_class_has_another_name(tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text("class Mine:\n    pass\n")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    with pytest.raises(ConfigError, match=r"my_model\.py has no class MyModel.*its file"):
        section("model", "my_model")


def test_a_section_inside_of_one_has_fields_of_its_own():
    config = section("task", "translation")
    assert config.search.kind == "wu"
    config.search.more_ends = [3, 4]
    config.search.kind = "transformers"
    assert build("task", config).writing.beams.search.more_ends == (3, 4)
    # A whole inner section may be left out, and so may a part of it.
    del config.search["kind"]
    assert build("task", config).writing.beams.search == Search(more_ends=(3, 4))
    del config["search"]
    assert build("task", config).writing.beams.search.kind == "wu"
    for changes, said in (
        ({"kinds": "wu"}, r"config.task.search has no .kinds.*kind"),
        ({"kind": "mine"}, r"config.task.search.kind is 'mine'"),
        ({"repetition_penalty": 0.0}, r"search.repetition_penalty is 0.0"),
        ({"unwritten": "1,x"}, r"search.unwritten is '1,x'"),
    ):
        with pytest.raises(ConfigError, match=said):
            build("task", ConfigDict({**section("task", "translation"), "search": changes}))


FLAT = {
    "language_modeling": ({"tokenizer": "bpe", "bpe_vocab_size": 300}, ("bpe", 300, None)),
    "translation": ({"tokenizer": "t.json", "search": {"kind": "wu"}}, ("t.json", 8192, None)),
    "masked_lm": (
        {"tokenizer": "wordpiece", "vocab_size": 99, "lowercase": True},
        ("wordpiece", 99, None),
    ),
    "tagging": ({"vocab_size": 99, "lowercase": False}, ("wordpiece", 99, False)),
}


@pytest.mark.parametrize("name", FLAT)
def test_flat_sections_of_format_1_are_read(name):
    """The sections of runs that were made before sections nested."""
    flat, expected = FLAT[name]
    saved = saved_config(
        {"task": {"name": name, **flat}, "model": {"name": "gpt", "vocab_size": 5}}
    )
    task = build("task", saved.task)
    tokenizer = value_of(task, "tokenizer")
    assert (tokenizer.kind, tokenizer.size, tokenizer.lowercase) == expected
    # A model's field of the same name stays where it is.
    assert saved.model.vocab_size == 5
    again = saved_config({"format": 2, **saved.to_dict()})
    assert again.to_dict() == saved.to_dict()


def test_how_a_flat_model_computes_is_read():
    how = {"dtype": "bfloat16", "scan_layers": True, "remat": "full", "attention": "einsum"}
    for number in ({}, {"format": 2}):
        saved = saved_config({**number, "model": {"name": "bert", "width": 24, **how}})
        model = build("model", saved.model)
        assert (model.width, model.compute) == (24, Compute(**how))
        assert saved.model.to_dict() == section("model", "bert", width=24, compute=how).to_dict()


@pytest.mark.parametrize("number", [0, 3, "2", True])
def test_formats_that_are_not_known_are_refused(number):
    with pytest.raises(ValueError, match="its format is"):
        saved_config({"format": number, "task": {"name": "tagging"}})


def test_a_value_for_a_section_names_its_fields():
    with pytest.raises(ConfigError, match=r"task\.tokenizer is 'bpe'.*kind, size, lowercase"):
        section("task", "language_modeling", tokenizer="bpe")
    with pytest.raises(ConfigError, match=r'did you mean "augmentation\.mixup"'):
        section("task", "image_classification", mixup=0.1)


def test_only_word_pieces_are_lowercase():
    choice = TokenizerChoice("bpe", lowercase=True)
    with pytest.raises(ConfigError, match=r"tokenizer\.lowercase is True.*bpe keeps capitals"):
        choice.make(EncoderTokenizer, ["a b"])
