"""GPT-2 in TransformerLens and here: every activation that both name, of the same weights.

TransformerLens comes with many packages, so that the suite's own installation does not have it:
`pip install transformer-lens==4.3.0`; with `-s` the differences are shown.
"""

import warnings

import numpy as np
import pytest

from tests.explaining.test_published import TOKENS, ours, traced
from tests.interop import test_decoders
from tests.interop.round_trips import disturbed
from transformer.explaining.names import OF_LAYERS, OF_MODELS, to_transformer_lens

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lens = pytest.importorskip(
        "transformer_lens.model_bridge", reason="TransformerLens is what is compared with"
    )


@pytest.mark.filterwarnings("ignore")
def test_every_activation_is_theirs(tmp_path):
    config = transformers.GPT2Config(vocab_size=61, **test_decoders.GPT2, bos_token_id=1)
    model = disturbed(transformers.GPT2LMHeadModel, config)
    model.save_pretrained(tmp_path)
    test_decoders.write_tokenizer(tmp_path)
    trace = traced(*ours(tmp_path), "decoder", "__call__", TOKENS)
    model.set_attn_implementation("eager")
    bridge = lens.TransformerBridge.boot_transformers(str(tmp_path), hf_model=model)
    logits, cache = bridge.run_with_cache(torch.from_numpy(TOKENS.astype(np.int64)))
    differences = {"logits": np.abs(trace.outputs - logits[0].detach().numpy()).max()}
    for layer in range(len(trace.stacks[0].layers)):
        for name in OF_LAYERS:
            theirs = to_transformer_lens(name, layer)
            if theirs in cache:
                differences[theirs] = difference(trace[theirs], cache[theirs], name)
    for name in OF_MODELS:
        if to_transformer_lens(name) in cache:
            theirs = to_transformer_lens(name)
            differences[theirs] = difference(trace[theirs], cache[theirs], name)
    print({name: f"{value:.1e}" for name, value in differences.items()})
    assert len(differences) > 20
    assert max(differences.values()) < 1e-5


def difference(mine, theirs, name):
    """The largest; there, heads come after tokens, and scores have the mask in them."""
    theirs = theirs.detach().numpy()
    theirs = theirs[0] if theirs.ndim > mine.ndim else theirs
    if name.endswith(("_query", "_key", "_value", "_mixed")):
        theirs = theirs.transpose(1, 0, 2)
    found = np.abs(mine - theirs)
    if name.endswith("_scores"):
        found = found[theirs > -1e4]
    return found.max()
