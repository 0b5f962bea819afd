"""Every key of every side file of published language models, set to another legal value."""

import dataclasses
import functools
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.keys import DELETED, Subject, is_tried, outcome
from tests.interop.round_trips import disturbed
from tests.tokenizers import make_text_tokenizer
from transformer.interop import published
from transformer.runs import importing as imported
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

CONFIG, GENERATION = "config.json", "generation_config.json"
SIZE = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA = {**SIZE, "sliding_window": 4, "query_pre_attn_scalar": 12, "num_hidden_layers": 2}
GEMMA |= {"layer_types": ["sliding_attention", "full_attention"]}
# The class, that of its config, and what is written; nothing has its default.
FAMILIES = {
    "gpt2": (
        "GPT2",
        {"vocab_size": 61, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32},
    ),
    "llama": ("Llama", {**SIZE, "rms_norm_eps": 1e-3}),
    "mistral": ("Mistral", {**SIZE, "sliding_window": 4}),
    "qwen2": ("Qwen2", {**SIZE, "rms_norm_eps": 1e-3}),
    "qwen3": ("Qwen3", {**SIZE, "rms_norm_eps": 1e-3}),
    "mixtral": ("Mixtral", {**SIZE, "num_local_experts": 3, "sliding_window": 4}),
    "gemma2": ("Gemma2", {**GEMMA, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0}),
    "gemma3_text": ("Gemma3", GEMMA),
}
TOKENS = np.random.default_rng(0).integers(2, 61, (1, 12))
SLOW = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
NEAR, FAR = "sliding_attention", "full_attention"
# Another legal value; several where there are several kinds.
VALUES = {
    "architectures": [["OtherModel"]],
    "activation_function": ["relu", "gelu", "mish"],
    "hidden_act": ["gelu", "gelu_new", "mish"],
    "hidden_activation": ["gelu", "gelu_new"],
    "n_inner": [24],
    "dtype": ["float16"],
    "id2label": [{"0": "A", "1": "B"}],
    "label2id": [{"A": 0}],
    "problem_type": ["regression"],
    "eos_token_id": [[5, 7], None],
    "head_dim": [16],
    "layer_types": [[NEAR], [FAR], [FAR, NEAR], [FAR, FAR], [NEAR, NEAR]],
    "max_window_layers": [0],
    "num_key_value_heads": [2],
    "rms_norm_eps": [0.5],
    "layer_norm_epsilon": [0.5],
    "rope_parameters": [
        {"rope_type": "default"},
        {"rope_theta": 50.0},
        {"rope_theta": 50.0, "rope_type": "default"},
        {**SLOW, "rope_theta": 50.0},
        SLOW,
        LLAMA3,
        {"rope_type": "yarn", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {FAR: {**SLOW, "rope_theta": 50.0}, NEAR: {"rope_type": "default"}},
        {FAR: {"rope_theta": 50.0}, NEAR: {**SLOW, "rope_theta": 30.0}},
        None,
    ],
    "rope_scaling": [
        SLOW,
        {"type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
        {"type": "dynamic", "factor": 4.0},
        {**LLAMA3, "original_max_position_embeddings": 8},
        None,
    ],
    "rope_theta": [50.0],
    "rope_local_base_freq": [50.0],
    "partial_rotary_factor": [0.5],
    "original_max_position_embeddings": [16],
    "attention_multiplier": [0.5],
    "sliding_window": [6, None],
    "sliding_window_pattern": [2],
    "summary_activation": ["tanh"],
    "summary_type": ["mean"],
    "use_sliding_window": [True],
    "attn_logit_softcapping": [3.0, None],
    "final_logit_softcapping": [3.0, None],
    "tie_word_embeddings": [True, False],
    "num_hidden_layers": [2, 3],
    "n_layer": [2],
    "num_labels": [3],
    "torch_dtype": ["float32"],
    "mlp_bias": [True],
    "quantization_config": [{"quant_method": "awq"}],
    "temperature": [0.5],
}
# Keys of files of other ages, and, for one family, of models that are near.
OTHERS = (
    "rope_theta",
    "rope_scaling",
    "rope_local_base_freq",
    "sliding_window_pattern",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "attention_multiplier",
    "num_labels",
    "torch_dtype",
    "mlp_bias",
    "attention_bias",
    "quantization_config",
    "temperature",
)
# Of these some values are enough where another family has all of them.
SHARED = {
    "rope_parameters": slice(3, 4),
    "rope_scaling": slice(1, 3),
    "hidden_act": slice(1, 3),
    "hidden_activation": slice(0, 2),
}
# What models differ in by more than keys.
NOT_KEYS = {"model_type", "transformers_version", "return_dict"}


def other(key, value):
    """Another legal values of a key that no list has."""
    if isinstance(value, bool) or value is None:
        return [not value]
    if isinstance(value, str):
        return [f"{value}er"]
    if isinstance(value, int):
        return [value + 1]
    assert isinstance(value, float), f"{key}: {value!r} has no other value here"
    return [2 * value + 0.5]


def config_class(kind):
    name = {"gemma3_text": "Gemma3Text"}.get(kind, FAMILIES[kind][0])
    return getattr(transformers, f"{name}Config")


@functools.cache
def subject(kind, place):
    name, values = FAMILIES[kind]
    head = "LMHeadModel" if kind == "gpt2" else "ForCausalLM"
    model = disturbed(getattr(transformers, name + head), config_class(kind)(**values))
    folder = place / kind
    model.save_pretrained(folder)
    text = "".join(map(chr, range(40, 90)))
    (folder / "tokenizer.json").write_text(make_text_tokenizer("character", text, 0).identity())
    return Subject(folder, theirs, ours)


def theirs(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return {"logits": model(torch.from_numpy(TOKENS)).logits.numpy()}


def ours(found):
    model = found.published.family.model(**found.published.model)
    return {"logits": logits(model, found.published.files[CONFIG].where.parent.parent, found)}


KNOWN = {}


def logits(model, place, found):
    """Arrays are those of the family in all cases: each model is computed once."""
    if (place, model) not in KNOWN:
        params = from_paths(found.published.params)
        KNOWN[place, model] = model.apply({"params": params}, jnp.asarray(TOKENS))[0]
    return KNOWN[place, model]


# Fields of models that change no shape, and so nothing of what is traced for shapes alone.
SHAPELESS = {
    "activation",
    "attention_cap",
    "dropout_rate",
    "global_every",
    "local_rope_base",
    "local_rope_factor",
    "logit_cap",
    "norm_epsilon",
    "query_scale",
    "rope_base",
    "rope_factor",
    "rope_old_context",
    "window",
}


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
    """Shapes are traced once for models that differ in other things: the rest is the test."""

    def plain(model):
        fields = {field.name: field.default for field in dataclasses.fields(model)}
        return model.clone(**{name: fields[name] for name in SHAPELESS & fields.keys()})

    entries, paths = published._entries_of, imported._paths_of_the_job
    monkeypatch.setattr(
        published, "_entries_of", lambda family, model: entries(family, plain(model))
    )
    monkeypatch.setattr(
        imported, "_paths_of_the_job", lambda model, *job: paths(plain(model), *job)
    )


def cases(kind, folder):
    """All keys of `config.json` with other values: those that are written, and all of the class."""
    written = json.loads((folder / CONFIG).read_text())
    fields = {field.name: field.default for field in dataclasses.fields(config_class(kind))}
    others = OTHERS if kind == "llama" else OTHERS[:4]
    for key in sorted({*others, *fields, *written} - NOT_KEYS):
        usual = written.get(key, fields.get(key))
        values = VALUES.get(key) or other(key, usual)
        if kind not in ("llama", "gemma3_text") and key in SHARED:
            values = values[SHARED[key]]  # Read by the same function as Llama's.
        for value in values:
            # Of the others only some read a rotation for each kind of layer; none says so.
            if kind == "gemma3_text" or not (key == "rope_parameters" and value and FAR in value):
                yield key, value
        if key in written:
            yield key, DELETED


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


@pytest.mark.parametrize("kind", FAMILIES)
def test_keys_of_the_config(kind, place, tmp_path):
    found = subject(kind, place)
    for index, (key, value) in enumerate(cases(kind, found.folder)):
        if is_tried(f"{kind} {index}"):
            outcome(found, tmp_path / str(index), CONFIG, key, value)


# ------------------------------------------------------------------ generation_config.json

# All that decides what is written; a list for a token, so that there may be none or several.
WRITING = {
    "bos_token_id": [3, None],
    "eos_token_id": [5, [5, 7], [], None],
    "pad_token_id": [4, None],
    "do_sample": [True, False],
    "temperature": [0.5],
    "top_k": [3, 0, None],
    "top_p": [0.5],
    "min_p": [0.25],
    "max_new_tokens": [9],
    "max_length": [9],
    "stop_strings": [["a"]],
    "bad_words_ids": [[[5]]],
    "suppress_tokens": [[5]],
    "begin_suppress_tokens": [[5]],
    "sequence_bias": [[[[5], 2.0]]],
    "force_words_ids": [[[5]]],
    "exponential_decay_length_penalty": [[3, 1.5]],
    "cache_implementation": ["static"],
    "cache_config": [{}],
    "watermarking_config": [{"bias": 2.0}],
    "num_assistant_tokens_schedule": ["heuristic"],
    "speculation_type": ["prompt_lookup"],
    "constraints": [[1]],
    "dola_layers": ["high"],
    "assistant_ensemble_weight": [0.5],
}


# Theirs cannot read them from a file.
NOT_IN_FILES = {"_from_model_config", "compile_config", "continuous_batching_config"}


def writing_of_theirs(folder):
    name = GENERATION if (folder / GENERATION).exists() else CONFIG
    said = transformers.GenerationConfig.from_pretrained(folder, config_file_name=name)
    found = transformers.GenerationConfig()
    found.update(**said.to_dict(), defaults_only=True)
    found.update(**said._get_default_generation_params(), defaults_only=True)
    chosen = ("temperature", "top_k", "top_p", "min_p")
    return {
        "ends": np.atleast_1d([] if found.eos_token_id is None else found.eos_token_id),
        "begin": np.array(-1 if found.bos_token_id is None else found.bos_token_id),
        "pad": np.array(-1 if found.pad_token_id is None else found.pad_token_id),
        "limit": np.array(found.max_new_tokens or 0),
        "sampling": np.array(
            [getattr(found, name) or 0 for name in chosen] if found.do_sample else [0, 0, 1, 0]
        ),
    }


def writing_of_ours(found):
    task = found.config.task
    return {
        "ends": np.array(task.stop_ids),
        "begin": np.array(-1 if task.begin is None else task.begin),
        "pad": np.array(-1 if task.pad is None else task.pad),
        "limit": np.array(task.max_new_tokens or 0),
        "sampling": np.array([task.temperature, task.top_k, task.top_p, task.min_p]),
    }


@pytest.mark.parametrize("sampled", [False, True])
def test_keys_of_writing(place, tmp_path, sampled):
    folder = tmp_path / "sampled"
    shutil.copytree(subject("llama", place).folder, folder)
    written = {"bos_token_id": 1, "eos_token_id": [2, 6], "pad_token_id": 0, "max_new_tokens": 8}
    if sampled:
        written |= {"do_sample": True, "temperature": 0.25, "top_k": 7, "top_p": 0.75, "min_p": 0.5}
    (folder / GENERATION).write_text(json.dumps(written))
    found = Subject(folder, writing_of_theirs, writing_of_ours)
    usual = transformers.GenerationConfig().to_dict() | WRITING
    usual |= transformers.GenerationConfig._get_default_generation_params()
    told = {}
    # What else there is does not depend on whether tokens are drawn.
    keys = WRITING.keys() if sampled else usual.keys() - NOT_KEYS - NOT_IN_FILES
    for key in sorted(keys):
        for index, value in enumerate(WRITING.get(key) or other(key, usual[key])):
            work = tmp_path / f"{key}{index}"
            told[key, repr(value)] = outcome(found, work, GENERATION, key, value)
        if key in written:
            outcome(found, tmp_path / f"{key} left out", GENERATION, key, DELETED)
    # What would change the text and is not done is named.
    for key in ("max_length",) if sampled else ("repetition_penalty", "num_beams", "min_length"):
        assert all(what == "reported" for (name, _), what in told.items() if name == key)


def test_a_config_of_before_says_how_to_write(place, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(subject("llama", place).folder, folder)
    (folder / GENERATION).unlink()
    found = Subject(folder, writing_of_theirs, writing_of_ours)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id", "do_sample", "max_new_tokens"):
        for index, value in enumerate([*WRITING[key], DELETED]):
            what = outcome(found, tmp_path / f"{key}{index}", CONFIG, key, value)
            assert what == "equal"
