"""Decoders of `transformers`: read, the same logits, the same greedy texts, written again."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.round_trips import arrays_of, disturbed, reloaded
from tests.tokenizers import make_text_tokenizer
from transformer.data.tokenizers.text import LibraryTextTokenizer
from transformer.decoding.sample import Sampling, generate, write
from transformer.errors import ConfigError, DataError
from transformer.interop.activations import published_activation
from transformer.interop.family import Trained
from transformer.interop.opening import family_for, read_published
from transformer.models.gemma import Gemma
from transformer.models.llama import Llama
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published
from transformer.runs.opening import open_run
from transformer.training.parameters import read_parameters
from transformer.training.selection import by_path, from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

SIZE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GEMMA = {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 24}
SLOWER = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
TURNS = ["sliding_attention", "full_attention", "sliding_attention"]
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
# Classes, and what they are made with; windows are shorter than the texts.
MODELS = {
    "gpt2": ("GPT2LMHeadModel", "GPT2", GPT2),
    "gpt2 narrow, with an output layer": (
        "GPT2LMHeadModel",
        "GPT2",
        {**GPT2, "n_inner": 40, "activation_function": "relu", "tie_word_embeddings": False},
    ),
    "llama": ("LlamaForCausalLM", "Llama", {"num_key_value_heads": 4}),
    "llama grouped, wide heads": (
        "LlamaForCausalLM",
        "Llama",
        {"head_dim": 16, "tie_word_embeddings": True},
    ),
    "llama 3": ("LlamaForCausalLM", "Llama", {"rope_parameters": LLAMA3}),
    "mistral": ("MistralForCausalLM", "Mistral", {"sliding_window": 8}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2", {"rope_theta": 1e6}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3", {"head_dim": 8, "num_key_value_heads": 1}),
    "mixtral": (
        "MixtralForCausalLM",
        "Mixtral",
        {"num_local_experts": 4, "head_dim": 8, "sliding_window": 8},
    ),
    "gemma 2": (
        "Gemma2ForCausalLM",
        "Gemma2",
        {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5},
    ),
    "gemma 3": (
        "Gemma3ForCausalLM",
        "Gemma3Text",
        # By turns of two, and one left over.
        {**GEMMA, "num_hidden_layers": 3, "layer_types": TURNS, "rope_parameters": SLOWER},
    ),
}


def theirs(model, config, **values):
    """A model with random weights of more than the usual size, so that differences show."""
    options = getattr(transformers, f"{config}Config")(**{**SIZE, **values})
    return disturbed(getattr(transformers, model), options)


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """A model of theirs, its folder, and ours with its parameters."""
    kind, options, config = MODELS[request.param]
    model = theirs(kind, options, **config)
    folder = tmp_path_factory.mktemp("published")
    written = model.generate(torch.from_numpy(TOKENS[:1, :9]), max_new_tokens=12, do_sample=False)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    # Not the first one that is named ends a text.
    ends = [min(set(range(50, 61)) - set(written[0].tolist())), int(written[0, 15])]
    (folder / "generation_config.json").write_text(json.dumps({**WRITING, "eos_token_id": ends}))
    read = read_published(folder)
    assert read.unused == []
    return model, folder, read.family.model(**read.model), from_paths(read.params)


WRITING = {"bos_token_id": 1, "pad_token_id": 0, "max_new_tokens": 11, "do_sample": False}
TOKENS = np.random.default_rng(0).integers(2, 61, (2, 40))


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, tokens):
    return model.apply({"params": params}, tokens)[0]


def test_logits_are_those_of_transformers(pair):
    model, _, ours, params = pair
    with torch.no_grad():
        expected = model(torch.from_numpy(TOKENS)).logits.numpy()
    found = logits(ours, params, jnp.asarray(TOKENS))
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.sampled(3)
def test_greedy_texts_are_those_of_transformers(pair):
    """Of prompts that differ in length: theirs are filled up on the left."""
    model, _, ours, params = pair
    rows = [TOKENS[0, :9], TOKENS[1, :5]]
    padded, mask = np.zeros((2, 9), int), np.zeros((2, 9), int)
    for index, row in enumerate(rows):
        padded[index, 9 - len(row) :], mask[index, 9 - len(row) :] = row, 1
    with torch.no_grad():
        expected = model.generate(
            torch.from_numpy(padded),
            attention_mask=torch.from_numpy(mask),
            max_new_tokens=32,
            do_sample=False,
        ).numpy()
    chunks = generate(
        ours, params, rows, max_new_tokens=32, sampling=Sampling(temperature=0.0), seed=0
    )
    np.testing.assert_array_equal(np.concatenate(list(chunks), axis=1), expected[:, 9:])


@pytest.mark.sampled(3)
def test_what_is_exported_is_what_was_imported(pair, tmp_path, request):
    model, folder, _, _ = pair
    # Half of them with stacked layers in between.
    scanned = list(MODELS).index(request.node.callspec.params["pair"]) % 2 == 0
    import_published(folder, tmp_path / "run", scan_layers=scanned)
    saved = by_path(read_parameters(tmp_path / "run").params)
    assert any("/layers/" in path for path in saved) == scanned
    # In several files, one of them smaller than most arrays.
    export_run(tmp_path / "run", tmp_path / "out", shard_bytes=12_000)
    before, after = arrays_of(folder), arrays_of(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    task = open_run(tmp_path / "run", "best").task
    said = json.loads((folder / "generation_config.json").read_text())
    assert list(task.stop_ids) == said["eos_token_id"]
    assert (task.begin, task.pad, task.max_new_tokens, task.temperature) == (1, 0, 11, 0)
    for name in ("config.json", "generation_config.json"):
        out = json.loads((tmp_path / "out" / name).read_text())
        assert {key: out[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")} == {
            key: said[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        }
    again = reloaded(type(model), tmp_path / "out")
    prompt = torch.from_numpy(TOKENS[:1, :9])
    first = type(model).from_pretrained(folder).generate(prompt).numpy()
    np.testing.assert_array_equal(again.generate(prompt).numpy(), first)
    # As many as the publisher says, or up to an end, which theirs writes, too.
    assert first.shape[1] <= 20
    assert first[0, -1] in task.stop_ids or first.shape[1] == 20
    # Where a text ends is decided for all families alike: one with stacked layers, one without.
    if request.node.callspec.params["pair"] in ("llama", "qwen3"):
        written = ours_stopped(tmp_path / "run", task)
        assert written == [token for token in first[0, 9:].tolist() if token not in task.stop_ids]
    tokens = torch.from_numpy(TOKENS)
    with torch.no_grad():
        np.testing.assert_array_equal(again(tokens).logits, model(tokens).logits)


def ours_stopped(workdir, task):
    """The tokens that a run writes after the prompt, one code point each, up to an end."""
    run = open_run(workdir, "best")
    tokenizer = CodePoints()
    (text,) = write(
        run.model,
        run.params,
        tokenizer,
        ["".join(map(chr, TOKENS[0, :9]))],
        max_new_tokens=task.max_new_tokens,
        sampling=task.sampling(),
        seed=0,
        stop_ids=task.stop_ids,
    )
    return [ord(letter) for letter in text[9:]]


class CodePoints(LibraryTextTokenizer):
    """A tokenizer whose tokens are code points."""

    def __init__(self):
        pass

    def encode_prompt(self, text):
        return np.array([ord(letter) for letter in text], np.int32)

    def stream(self):
        return self

    def push(self, token):
        return chr(token)

    def close(self):
        return ""


def write_tokenizer(folder):
    text = "".join(map(chr, range(40, 90)))
    (folder / "tokenizer.json").write_text(make_text_tokenizer("character", text, 0).identity())


@pytest.fixture
def folder(tmp_path):
    """A published folder with a tokenizer."""
    theirs("LlamaForCausalLM", "Llama").save_pretrained(tmp_path / "theirs")
    write_tokenizer(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_a_run_of_a_published_model(folder, tmp_path):
    published = import_published(folder, tmp_path / "run")
    run = open_run(tmp_path / "run", "best")
    assert run.config.model.name == "llama"
    assert run.task.context == 128
    assert sum(array.size for array in published.params.values()) == sum(
        leaf.size for leaf in jax.tree.leaves(run.params)
    )


def changed(folder, **config):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **config}))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "falcon"}, "'falcon'"),
        ({"hidden_act": "mish"}, "mish"),
        ({"attention_bias": True}, "attention_bias"),
        ({"attention_bias": None}, "attention_bias"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ({"hidden_size": "wide"}, "where a whole number from"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"intermediate_size": 50}, "intermediate_size"),
        ({"num_hidden_layers": 3}, "num_hidden_layers"),
    ],
)
def test_configs_that_do_not_fit(folder, tmp_path, config, said):
    changed(folder, **config)
    with pytest.raises(DataError) as error:
        read_published(folder)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_tokenizer(folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        import_published(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_too_large_are_not_written(folder, tmp_path):
    model = theirs("LlamaForCausalLM", "Llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = 1e5
    model.save_pretrained(folder)
    import_published(folder, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"model\.layers\.1\.mlp\.up_proj\.weight has .* 100000"):
        export_run(tmp_path / "run", tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()
    export_run(tmp_path / "run", tmp_path / "out", dtype="bfloat16")


@pytest.mark.parametrize(
    ("name", "model", "said"),
    [
        ("llama", Llama(vocab_size=8, head_norm=True, qkv_bias=True), "config.model.qkv_bias"),
        ("gemma", Gemma(vocab_size=8, attention_cap=2.0), "config.model.attention_cap"),
        ("gemma", Gemma(vocab_size=8, head_norm=False, local_rope_factor=2.0), "local_rope_factor"),
    ],
)
def test_models_that_nobody_publishes(name, model, said):
    with pytest.raises(ConfigError) as error:
        family_for(name, model).config(Trained("language_modeling", None, model))
    assert said in str(error.value)


def test_an_activation_without_a_name():
    with pytest.raises(ConfigError, match="'snake'"):
        published_activation("snake")
