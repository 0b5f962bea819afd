"""Runs of every family with random parameters, as open_run gives them."""

import functools

import jax.numpy as jnp
from ml_collections import ConfigDict

from tests.common import AnyMethod, noisy_parameters
from tests.tokenizers import make_encoder_tokenizer, make_sentence_tokenizer, make_text_tokenizer
from transformer.composition import with_fields
from transformer.models.bert import BERT
from transformer.models.gemma import Gemma
from transformer.models.gpt import GPT
from transformer.models.llama import Llama
from transformer.models.mixtral import Mixtral
from transformer.models.modern_bert import ModernBert
from transformer.models.t5 import T5
from transformer.models.vaswani import Vaswani
from transformer.models.vit import ViT
from transformer.nn.compute import Compute
from transformer.runs.opening import Run
from transformer.tasks.image_classification import ImageClassification
from transformer.tasks.language_modeling import LanguageModeling
from transformer.tasks.masked_images import MaskedImages
from transformer.tasks.masked_lm import MaskedLM
from transformer.tasks.parts.images import Preparation
from transformer.tasks.parts.labels import save_labels
from transformer.tasks.question_answering import QuestionAnswering
from transformer.tasks.tagging import Tagging
from transformer.tasks.text_classification import TextClassification
from transformer.tasks.translation import Translation

TEXT = "ROMEO: But soft, what light through yonder window breaks? It is the east.\n"
SIZES = {"num_layers": 2, "num_heads": 4, "width": 16}
PAIR = {"num_encoder_layers": 2, "num_decoder_layers": 2, "num_heads": 2, "width": 16}


def made(folder, name, task, model, method, *inputs, tokenizer=None, labels=()):
    """A run, and in its folder what the task reads from there."""
    folder.mkdir(exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(folder)
    if labels:
        save_labels(labels, folder)
    params = noisy_parameters(AnyMethod(model, method), *inputs)
    job = type(task).__module__.rpartition(".")[2]
    config = ConfigDict({"model": {"name": name}, "task": {"name": job}})
    return Run(config, task, model, params, 7, folder)


def decoder(kind, name, folder, **fields):
    tokenizer = make_text_tokenizer("character", TEXT, 100)
    model = kind(vocab_size=tokenizer.vocab_size, context=32, **SIZES | fields)
    tokens = jnp.zeros((1, 8), jnp.int32)
    task = LanguageModeling(context=32)
    return made(folder, name, task, model, "__call__", tokens, tokenizer=tokenizer)


def pair(kind, name, folder, **fields):
    tokenizer = make_sentence_tokenizer("bpe", [TEXT], 270)
    sizes = PAIR | {"feed_forward_width": 24} | fields
    model = kind(vocab_size=tokenizer.vocab_size, **sizes)
    tokens = jnp.zeros((1, 8), jnp.int32)
    return made(folder, name, Translation(), model, "__call__", tokens, tokens, tokenizer=tokenizer)


def encoder(kind, name, task, method, folder, labels=(), **fields):
    tokenizer = make_encoder_tokenizer("wordpiece", [TEXT], vocab_size=80, lowercase=True)
    sizes = SIZES | {"num_outputs": len(labels) or None}
    model = kind(vocab_size=tokenizer.vocab_size, context=32, **sizes, **fields)
    tokens = jnp.zeros((1, 8), jnp.int32)
    inputs = [tokens, tokens, jnp.full(1, 8)]
    if method == "fill":
        inputs.append(jnp.zeros((1, 2), jnp.int32))
    return made(folder, name, task, model, method, *inputs, tokenizer=tokenizer, labels=labels)


def image(folder, task=ImageClassification, **fields):
    model = ViT(
        num_outputs=3,
        channels=3,
        image_size=8,
        patch_size=4,
        num_registers=2,
        **SIZES,
        **fields,
    )
    job = with_fields(task(), preparation=Preparation(image_size=8, resize="stretch"))
    pixels = jnp.zeros((1, 8, 8, 3))
    labels = ("cat", "dog", "owl")
    return made(folder, "vit", job, model, "classify", pixels, labels=labels)


RUNS = {
    "gpt": functools.partial(decoder, GPT, "gpt"),
    "gpt-scanned": functools.partial(decoder, GPT, "gpt", compute=Compute(scan_layers=True)),
    "llama": functools.partial(decoder, Llama, "llama", num_kv_heads=2, window=4),
    "gemma": functools.partial(
        decoder,
        Gemma,
        "gemma",
        num_kv_heads=2,
        window=3,
        global_every=2,
        feed_forward_width=24,
        attention_cap=5.0,
        logit_cap=4.0,
        compute=Compute(scan_layers=True),
    ),
    "mixtral": functools.partial(decoder, Mixtral, "mixtral", num_experts=3, feed_forward_width=24),
    "vaswani": functools.partial(pair, Vaswani, "vaswani"),
    "t5": functools.partial(pair, T5, "t5"),
    "bert": functools.partial(
        encoder,
        BERT,
        "bert",
        with_fields(TextClassification(), max_length=32),
        "classify",
        labels=("a", "b"),
    ),
    "tags": functools.partial(
        encoder,
        BERT,
        "bert",
        with_fields(Tagging(), max_length=32),
        "tag",
        labels=("O", "B-PER", "I-PER"),
    ),
    "questions": functools.partial(
        encoder,
        ModernBert,
        "modern_bert",
        with_fields(QuestionAnswering(), max_length=32, max_question_length=8, stride=8),
        "tag",
        labels=("start", "end"),
        window=3,
        feed_forward_width=24,
    ),
    "masked": functools.partial(
        encoder, BERT, "bert", with_fields(MaskedLM(), max_length=32, next_sentence=False), "fill"
    ),
    "vit": image,
    "mae": functools.partial(image, task=MaskedImages),
}
# A prompt and a target for each, of those that can be explained.
PROMPTS = {
    **dict.fromkeys(("gpt", "gpt-scanned", "llama", "gemma", "mixtral"), ("ROMEO: But", None)),
    **dict.fromkeys(("vaswani", "t5"), ("what light", "the east")),
    "bert": ("what light", None),
    "tags": ("what light breaks", None),
    "questions": ("what light", "It is the east."),
    "masked": ("what [MASK] through yonder [MASK]", None),
}
