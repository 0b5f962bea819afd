"""Published models of antibodies, AntiBERTy (MIT) and IgLM (tests only), from their archives."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from transformer.data.embedded.packages import package_folder
from transformer.data.tokenizers.residues import residue_library
from transformer.decoding.marginals import masked_marginals
from transformer.ops.losses import cross_entropy
from transformer.runs.importing import import_published
from transformer.runs.opening import open_run

pytestmark = pytest.mark.filterwarnings("ignore")
# The variable part of the heavy chain of trastuzumab.
HEAVY = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDT"
    "AVYYCSRWGGDGFYAMDYWGQGTLVTVSS"
)


# Later versions of antiberty come without weights.
WITH_WEIGHTS = {"antiberty": "antiberty==0.1.3", "iglm": "iglm"}


def folder_of(package, name):
    pytest.importorskip("torch", reason="torch reads the same weights")
    pytest.importorskip("transformers", reason="transformers computes with the same weights")
    folder = package_folder(package)
    if folder is None or not (folder / "trained_models" / name).is_dir():
        pytest.skip(f"no weights of {package}: pip install --no-deps {WITH_WEIGHTS[package]}")
    return folder / "trained_models" / name, folder / "trained_models" / "vocab.txt"


@pytest.fixture(scope="module")
def antiberty(tmp_path_factory):
    """Their model, its tokens, and a run of ours."""
    source, vocabulary = folder_of("antiberty", "AntiBERTy_md_smooth")
    folder = tmp_path_factory.mktemp("antiberty")
    for file in (source / "config.json", source / "pytorch_model.bin", vocabulary):
        shutil.copy(file, folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    found = import_published(folder, folder / "run", ignore=r"^cls\.(species|chain|graft)\.")
    assert found.job == "masked_lm"
    import transformers

    theirs = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    return theirs, vocabulary.read_text().split(), open_run(folder / "run")


def test_antiberty_says_the_same(antiberty):
    """Each residue masked in turn: its likelihood, and the residue that is put in its place."""
    import torch

    theirs, tokens, run = antiberty
    places = np.arange(0, len(HEAVY), 6)
    truth = np.array([tokens.index(residue) for residue in HEAVY])
    start, separator, mask = map(tokens.index, ("[CLS]", "[SEP]", "[MASK]"))
    rows = np.tile([start, *truth, separator], (len(places), 1))
    rows[np.arange(len(places)), places + 1] = mask
    with torch.no_grad():
        logits = theirs(torch.tensor(rows)).logits[np.arange(len(places)), places + 1]
    expected = torch.log_softmax(logits, -1).numpy()
    ours = run.task.load_tokenizer(run.workdir)
    found = masked_marginals(run.model, run.params, ours, HEAVY, places=places)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    likelihoods = [each[range(len(places)), truth[places]].mean() for each in (found, expected)]
    np.testing.assert_allclose(*likelihoods, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))
    # Framework regions of antibodies are nearly all alike.
    assert np.mean(found.argmax(-1) == truth[places]) > 0.6
    assert likelihoods[0] > -1.2


def test_iglm_says_the_same(tmp_path):
    """Nats for each residue of a heavy chain of a human."""
    source, vocabulary = folder_of("iglm", "IgLM-S")
    import torch
    import transformers

    for name in ("config.json", "pytorch_model.bin"):
        shutil.copy(source / name, tmp_path)
    tokens = vocabulary.read_text().split()
    library = residue_library({token: index for index, token in enumerate(tokens)}, "[UNK]")
    library.save(str(tmp_path / "tokenizer.json"))
    import_published(tmp_path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    names = ("[HEAVY]", "[HUMAN]", *HEAVY, "[SEP]")
    ids = jnp.array([[tokens.index(name) for name in names]], jnp.int32)
    features, _ = run.model.apply({"params": run.params}, ids, method="features")
    logits = run.model.apply({"params": run.params}, features, method="logits")
    ours = np.asarray(cross_entropy(logits[:, 1:-1], ids[:, 2:]).nll).mean()
    theirs = transformers.GPT2LMHeadModel.from_pretrained(source).eval()
    with torch.no_grad():
        scores = theirs(torch.tensor(np.array(ids, np.int64))).logits
    log = torch.log_softmax(scores, -1).numpy()
    np.testing.assert_allclose(logits, scores.numpy(), atol=2e-4)
    expected = -log[0, range(1, ids.shape[1] - 1), ids[0, 2:]].mean()
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert expected < 1.0
