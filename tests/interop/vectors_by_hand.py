"""Vectors of texts as sentence-transformers makes them, which need not be installed."""

import json

import numpy as np

from tests.interop.published_encoders import TEXTS, longest, theirs

POOLINGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens")
POOLINGS += ("weightedmean_tokens", "lasttoken")


def their_vectors(folder):
    """By the definitions of sentence-transformers, which need not be installed."""
    import torch

    tokenizer, model = theirs(folder, "embedding")
    read = lambda name: json.loads((folder / name).read_text("utf-8"))  # noqa: E731
    modules, pooling = read("modules.json"), read("1_Pooling/config.json")
    sentence, prompts = read("sentence_bert_config.json"), read("config_sentence_transformers.json")
    prompt = prompts.get("prompts", {}).get(prompts.get("default_prompt_name"), "")
    limit = sentence.get("max_seq_length") or longest(tokenizer, model)

    def tokens(text):
        text = text.strip()
        text = text.lower() if sentence.get("do_lower_case") else text
        return tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")

    vectors = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokens(prompt + text)).last_hidden_state[0]
        skipped = 0
        if prompt and not pooling.get("include_prompt", True):
            skipped = tokens(prompt)["input_ids"].shape[1] - 1
        mode, real = pooling.get("pooling_mode"), states[skipped:]
        weights = torch.arange(skipped + 1.0, len(states) + 1)[:, None]
        made = {
            "cls_token": states[0],
            "max_tokens": real.max(0).values,
            "mean_tokens": real.mean(0),
            "mean_sqrt_len_tokens": real.sum(0) / len(real) ** 0.5,
            "weightedmean_tokens": (real * weights).sum(0) / weights.sum(),
            "lasttoken": real[-1],
        }
        usual = {"mean_tokens": True} if mode is None else {}
        chosen = [
            made[name]
            for name in POOLINGS
            if (name.removesuffix("_tokens").removesuffix("_token") == mode or name == mode)
            or (mode is None and pooling.get(f"pooling_mode_{name}", usual.get(name, False)))
        ]
        vector = torch.cat(chosen)
        normal = any(module["type"].endswith("Normalize") for module in modules)
        vectors.append((vector / vector.norm() if normal else vector).numpy())
    return {"vectors": np.stack(vectors)}
