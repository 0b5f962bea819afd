"""Llama and its kin of `transformers`: read, the same logits, the same greedy texts."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.data.tokenizers import make_tokenizer
from transformer.decoding.sample import Sampling, generate
from transformer.errors import DataError
from transformer.interop.llama import read_llama
from transformer.models.llama import Llama
from transformer.training.imported import import_published
from transformer.training.runs import open_run
from transformer.training.selection import from_paths

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
MODELS = {
    "llama": ("Llama", {"num_key_value_heads": 4}),
    "llama grouped, wide heads": ("Llama", {"head_dim": 16, "tie_word_embeddings": True}),
    "llama 3": ("Llama", {"rope_parameters": LLAMA3}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "qwen2": ("Qwen2", {"rope_theta": 1e6}),
    "qwen3": ("Qwen3", {"head_dim": 8, "num_key_value_heads": 1}),
}


def theirs(kind, **config):
    """A model with random weights of more than the usual size, so that differences show."""
    torch.manual_seed(0)
    options = getattr(transformers, f"{kind}Config")(**{**SIZE, **config})
    model = getattr(transformers, f"{kind}ForCausalLM")(options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """A model of theirs, and ours with its parameters."""
    kind, config = MODELS[request.param]
    model = theirs(kind, **config)
    folder = tmp_path_factory.mktemp("published")
    model.save_pretrained(folder)
    read = read_llama(folder)
    assert read.unused == []
    return model, Llama(**read.model), from_paths(read.params)


TOKENS = np.random.default_rng(0).integers(2, 61, (2, 40))


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, tokens):
    return model.apply({"params": params}, tokens)[0]


def test_logits_are_those_of_transformers(pair):
    model, ours, params = pair
    with torch.no_grad():
        expected = model(torch.from_numpy(TOKENS)).logits.numpy()
    found = logits(ours, params, jnp.asarray(TOKENS))
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_padding_on_the_left_is_not_seen(pair):
    model, ours, params = pair
    mask = np.ones_like(TOKENS)
    mask[0, :7] = 0
    with torch.no_grad():
        expected = model(
            torch.from_numpy(TOKENS),
            attention_mask=torch.from_numpy(mask),
            position_ids=torch.from_numpy(np.maximum(mask.cumsum(1) - 1, 0)),
        ).logits.numpy()
    found = logits(ours, params, jnp.asarray(TOKENS[:1, 7:]))
    np.testing.assert_allclose(found[0], expected[0, 7:], atol=1e-4)


def test_greedy_texts_are_those_of_transformers(pair):
    model, ours, params = pair
    prompts = TOKENS[:, :9]
    with torch.no_grad():
        expected = model.generate(
            torch.from_numpy(prompts),
            attention_mask=torch.ones(2, 9, dtype=torch.long),
            max_new_tokens=32,
            do_sample=False,
        ).numpy()
    found = greedy(ours, params, prompts, 32)
    np.testing.assert_array_equal(found, expected[:, 9:])


def greedy(model, params, prompts, count):
    chunks = generate(
        model,
        params,
        list(prompts),
        max_new_tokens=count,
        sampling=Sampling(temperature=0.0),
        seed=0,
    )
    return np.concatenate(list(chunks), axis=1)


@pytest.fixture
def folder(tmp_path):
    """A published folder with a tokenizer."""
    theirs("Llama").save_pretrained(tmp_path / "theirs")
    text = "".join(map(chr, range(40, 90)))
    (tmp_path / "theirs" / "tokenizer.json").write_text(
        make_tokenizer("character", text, 0).to_json()
    )
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
        ({"attention_bias": True}, "biases"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ({"hidden_size": "wide"}, "no number"),
        ({"num_key_value_heads": 3}, "num_kv_heads"),
        ({"intermediate_size": 50}, "asks for"),
        ({"num_hidden_layers": 3}, "lacks"),
    ],
)
def test_configs_that_do_not_fit(folder, tmp_path, config, said):
    changed(folder, **config)
    with pytest.raises(DataError) as error:
        read_llama(folder)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_tokenizer(folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        import_published(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
