"""Folders of T5s and Marians as `transformers` writes them, and what it and we make of them."""

import functools
import io
import json
import warnings

import jax
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from tokenizers import decoders, pre_tokenizers, trainers

from transformer.data.tokenizers.kinds.marian import MarianTokenizer
from transformer.decoding.translate import translate
from transformer.training.sections import build
from transformer.training.selection import from_paths

SOURCE = [
    "the house is green and the dog runs",
    "a small frog asked the teacher",
    "where is the green frog now?",
    "the teacher runs to the house in 1984.",
]
TARGET = [
    "das Haus ist grün und der Hund läuft",
    "ein kleiner Frosch fragte den Lehrer",
    "wo ist der grüne Frosch jetzt?",
    "der Lehrer läuft 1984 zum Haus.",
]
# Of one shape, for one program; with tokens that files may add.
TEXTS = ["a <extra_id_0> dog <new>runs", "x<sep>the house<extra_id_1> is", "the 天 frog, is n't"]
LONGEST = 200


def pieces(lines, path, **options):
    """A model of SentencePiece for some lines, and its pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 6),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    path.write_bytes(written.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(index) for index in range(processor.vocab_size())]


def disturbed(model, end, likely=1.5):
    """Random weights of more than the usual size; ends are as probable as anything else."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm.weight" in name:
                # Of either sign, so that a tied output layer does not just repeat a token.
                parameter.copy_(torch.randn(parameter.shape))
            elif "embed_positions" not in name:
                parameter.add_(0.4 * torch.randn(parameter.shape))
        model.get_input_embeddings().weight[end] *= likely
    return model.eval()


def write_t5(folder, *, library=False, settings=None, generation=None, likely=1.5, **config):
    """A T5 of one layer, with a `spiece.model`, or else with a `tokenizer.json`."""
    folder.mkdir()
    if library:
        made = tokenizers.Tokenizer(tokenizers.models.Unigram())
        space = {"replacement": "▁", "prepend_scheme": "always"}
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**space)]
        )
        made.decoder = decoders.Metaspace(**space)
        trainer = trainers.UnigramTrainer(
            vocab_size=60,
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        )
        made.train_from_iterator(SOURCE * 4, trainer)
        made.add_special_tokens(["<extra_id_1>", "<extra_id_0>"])
        made.save(str(folder / "tokenizer.json"))
    else:
        ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
        pieces(SOURCE, folder / "spiece.model", **ids)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    settings = {"extra_ids": 2, **(settings or {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    options = {
        # As published ones, which have more entries than tokens.
        "vocab_size": len(tokenizer) + 3,
        "d_model": 16,
        "d_kv": 6,
        "d_ff": 24,
        "num_layers": 1,
        "num_heads": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "decoder_start_token_id": 0,
        **config,
    }
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**options))
    disturbed(model, 1, likely)
    if options.get("tie_word_embeddings") is False:
        shape = model.lm_head.weight.shape
        model.lm_head.weight = torch.nn.Parameter(0.5 * torch.randn(shape))
        with torch.no_grad():
            model.lm_head.weight[1] *= likely
    return _saved(model, tokenizer, generation, folder)


def write_marian(folder, *, settings=None, generation=None, likely=1.5, **config):
    """A Marian of one layer."""
    folder.mkdir()
    both = pieces(SOURCE, folder / "source.spm")[3:] + pieces(TARGET, folder / "target.spm")[3:]
    both = [piece for piece in dict.fromkeys(both) if piece != "▁green"]
    tokens = ["</s>", "<unk>", *both[:9], ">>deu<<", *both[9:], "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "config.json").write_text('{"model_type": "marian"}')
    (folder / "tokenizer_config.json").write_text(json.dumps(settings or {}))
    tokenizer = their_tokenizer(folder)
    pad = len(tokens) - 1
    options = {
        "vocab_size": len(tokenizer) + 4,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "activation_function": "swish",
        "scale_embedding": True,
        "max_position_embeddings": 64,
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
        **config,
    }
    model = transformers.MarianMTModel(transformers.MarianConfig(**options))
    model.final_logits_bias.copy_(0.5 * torch.randn(model.final_logits_bias.shape))
    model.final_logits_bias[:, 0] = 4.0
    return _saved(disturbed(model, 0, likely), tokenizer, generation, folder)


def _saved(model, tokenizer, generation, folder):
    for key, value in (generation or {}).items():
        setattr(model.generation_config, key, value)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def their_tokenizer(folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        return transformers.AutoTokenizer.from_pretrained(folder)


def padded(rows):
    found = np.full((len(rows), LONGEST), -1)
    for row, values in enumerate(rows):
        found[row, : len(values)] = values
    return found


def letters(texts):
    return padded([[ord(letter) for letter in text] for text in texts])


def theirs(folder, *, outputs=True):
    """Tokens, what they are decoded to, logits and outputs of `transformers`."""
    tokenizer = their_tokenizer(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    rows = tokenizer(TEXTS, truncation=True)["input_ids"]
    batch = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
    begin = model.generation_config.decoder_start_token_id
    begin = model.generation_config.bos_token_id if begin is None else begin
    target = torch.tensor([[begin, 7, 5]] * len(TEXTS))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logits = model(**batch, decoder_input_ids=target).logits.numpy()
        written = model.generate(**batch).tolist() if outputs else []
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    ended = []
    for _, *row in written[:: max(1, len(written) // len(TEXTS))]:
        places = [place for place, token in enumerate(row) if token in ends]
        ended.append(row[: places[0]] if places else row)
    text = [tokenizer.decode(ids[:-1]).strip() for ids in rows]
    found = {"tokens": padded(rows), "logits": logits}
    if outputs:
        found["outputs"] = padded(ended)
    # Theirs decodes with the source's model, which says nothing of what is written.
    if not isinstance(tokenizer, transformers.MarianTokenizer):
        found["text"] = letters(text)
    return found


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, source, target, **layout):
    return model.apply({"params": params}, source, target, **layout)


_FOUND = {}


def searched_alike(read):
    """What a search depends on beside the model and its source."""
    model, beam = build("model", read.config.model), build("task", read.config.task).beam()
    return model.begin_token(), read.run.tokenizer.end, beam


def ours(read, *, outputs=True):
    """The same of what was read of a folder, the way of `generate.py`."""
    task, model = build("task", read.config.task), build("model", read.config.model)
    tokenizer, params = read.run.tokenizer, from_paths(read.published.params)
    sources, _ = task.encode_sources(tokenizer, TEXTS)
    rows = [[*ids.tolist(), tokenizer.end] for ids in sources]
    # Most keys change nothing that a search depends on.
    key = (str(rows), model, repr(task.beam()), _digest(read.published.params))
    if outputs and key not in _FOUND:
        _FOUND[key] = translate(model, params, tokenizer, sources, task.beam())
    longest = max(map(len, rows))
    source = np.array([row + [0] * (longest - len(row)) for row in rows], np.int32)
    seen = np.arange(longest) < np.array([len(row) for row in rows])[:, None]
    target = np.array([[model.begin_token(), 7, 5]] * len(TEXTS), np.int32)
    layout = {"source_segments": seen, "target_segments": np.ones_like(target)}
    layout = {name: mask.astype(np.int32) for name, mask in layout.items()}
    found = {
        "tokens": padded(rows),
        "logits": np.asarray(_logits(model, params, source, target, **layout)),
    }
    if key in _FOUND:
        found["outputs"] = padded([texts[0].ids.tolist() for texts in _FOUND[key]])
    if not isinstance(tokenizer, MarianTokenizer):
        found["text"] = letters([tokenizer.decode(row[:-1]) for row in rows])
    return found


def _digest(params):
    return float(sum(np.abs(np.asarray(array)).sum() for array in params.values()))
