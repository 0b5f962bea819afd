"""BERT checkpoints as other programs write them, made of random numbers."""

import json

import numpy as np

from transformer.interop.formats.safetensors import write_safetensors

CONFIG = {
    "architectures": ["BertForPreTraining"],
    "hidden_act": "gelu",
    "hidden_size": 8,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 13,
}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY += ["the", "cat", "sat", "on", "mat", "##s", ".", ","]
LAYER = {
    "attention.self.query": (8, 8),
    "attention.self.key": (8, 8),
    "attention.self.value": (8, 8),
    "attention.output.dense": (8, 8),
    "attention.output.LayerNorm": (8,),
    "intermediate.dense": (12, 8),
    "output.dense": (8, 12),
    "output.LayerNorm": (8,),
}
HEADS = {
    "pooler": {"pooler.dense": (8, 8)},
    "masked": {
        "cls.predictions.transform.dense": (8, 8),
        "cls.predictions.transform.LayerNorm": (8,),
    },
    "next": {"cls.seq_relationship": (2, 8)},
    "classes": {"classifier": (3, 8)},
    "number": {"classifier": (1, 8)},
    "spans": {"qa_outputs": (2, 8)},
}


def arrays(*heads, prefix="bert.", seed=0):
    """Of an encoder and of some heads, by their names in such files."""
    rng = np.random.default_rng(seed)
    found = {
        f"embeddings.{name}_embeddings.weight": rng.normal(size=(rows, 8))
        for name, rows in (("word", 13), ("position", 20), ("token_type", 2))
    }
    modules = {"embeddings.LayerNorm": (8,)}
    for layer in range(2):
        modules |= {f"encoder.layer.{layer}.{name}": shape for name, shape in LAYER.items()}
    for head in heads:
        modules |= HEADS[head]
    if "masked" in heads:
        found["cls.predictions.bias"] = rng.normal(size=13)
    for name, shape in modules.items():
        found[f"{name}.weight"] = rng.normal(size=shape)
        found[f"{name}.bias"] = rng.normal(size=shape[0])
    above = ("cls.", "classifier.", "qa_outputs.")
    return {
        name if name.startswith(above) else prefix + name: array.astype(np.float32)
        for name, array in found.items()
    }


def write(folder, found=None, *, without=(), weights=True, **config):
    """A folder with config, vocabulary and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in (CONFIG | config).items() if key not in without}
    (folder / "config.json").write_text(json.dumps(content), "utf-8")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    if weights:
        found = arrays("pooler", "masked", "next") if found is None else found
        write_safetensors(found, folder / "model.safetensors")
    return folder
