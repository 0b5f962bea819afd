"""Each key of each side file of T5s and Marians with another value: equal, or named."""

import collections

import pytest

from tests.interop.keys import DELETED, PART, Subject, outcome
from transformer.runs import importing as imported

for name in ("safetensors", "sentencepiece", "torch", "transformers"):
    pytest.importorskip(name, reason="transformers makes the folders")
sentence_folders = pytest.importorskip("tests.interop.sentence_folders")

CONFIG, GENERATION = "config.json", "generation_config.json"
SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
# Of every encoder-decoder: what is searched for, ...
SEARCH = {
    "num_beams": [2, DELETED],
    "length_penalty": [-1.0],
    "early_stopping": [True, "never"],
    "no_repeat_ngram_size": [2],
    "max_length": [6],
    "max_new_tokens": [4],
    "min_length": [9],
    "min_new_tokens": [7],
    "num_return_sequences": [2],
    "repetition_penalty": [1.5],
    "encoder_repetition_penalty": [1.5],
    "encoder_no_repeat_ngram_size": [2],
    "bad_words_ids": [[[36], [7, 8]]],
    "suppress_tokens": [[8, 13]],
    "begin_suppress_tokens": [[7, 36, 14]],
    "forced_bos_token_id": [9],
    "forced_eos_token_id": [9],
    "sequence_bias": [[[[8], 1.0]]],
    "exponential_decay_length_penalty": [[3, 2.0]],
    "do_sample": [True],
    "temperature": [0.5],
    "top_k": [3],
    "top_p": [0.5],
    "typical_p": [0.5],
    "renormalize_logits": [True],
    "remove_invalid_values": [True],
    "use_cache": [False],
    "output_attentions": [True],
    "pad_token_id": [4],
    "bos_token_id": [3],
    "decoder_start_token_id": [5, DELETED],
    "eos_token_id": [8, DELETED],
    "transformers_version": ["4.0.0"],
    "guidance_scale": [1.5],
    "num_assistant_tokens": [3],
    "stop_strings": [["x"]],
    "made_up": [1],
}
# ... what every config has, ...
ANY_CONFIG = {
    "architectures": [["Another"], DELETED],
    "vocab_size": [30, DELETED],
    "d_model": [8, DELETED],
    "is_encoder_decoder": [False, DELETED],
    "is_decoder": [True],
    "use_cache": [False],
    "eos_token_id": [7, DELETED],
    "pad_token_id": [4, DELETED],
    "decoder_start_token_id": [5],
    "tie_word_embeddings": [False, DELETED],
    "id2label": [{"0": "a"}],
    "tokenizer_class": ["BertTokenizer"],
    "num_beams": [4],
    "max_length": [3],
    "hidden_size": [20],
    "num_hidden_layers": [3],
    "prefix": ["summarize: "],
    "made_up": [1],
}
# ... and the settings of every tokenizer.
ANY_SETTINGS = {
    "eos_token": ["<unk>", DELETED],
    "pad_token": ["<unk>", DELETED],
    "unk_token": ["<unk>"],
    "cls_token": ["<new>"],
    "image_token": ["<new>"],
    "additional_special_tokens": [["<sep>"]],
    "extra_special_tokens": [
        ["<extra_id_0>", "<extra_id_1>", "<new>"],
        {"image_token": "<new>"},
        DELETED,
    ],
    "added_tokens_decoder": [{"44": {"content": "<sep>", "rstrip": True, "special": True}}],
    "split_special_tokens": [True],
    "model_max_length": [9, DELETED],
    "clean_up_tokenization_spaces": [True],
    "sp_model_kwargs": [{"add_bos": True}],
    "add_prefix_space": [True],
    "legacy": [False],
    "padding_side": ["left"],
    "truncation_side": ["left"],
    "tokenizer_class": ["PreTrainedTokenizerFast", "GPT2Tokenizer", DELETED],
    "do_lower_case": [True],
    "made_up": [1],
}
KEYS = {
    "t5": {
        CONFIG: ANY_CONFIG
        | {
            "d_kv": [5, DELETED],
            "d_ff": [20, DELETED],
            "num_layers": [2, DELETED],
            "num_decoder_layers": [2, DELETED],
            "num_heads": [3, DELETED],
            "relative_attention_num_buckets": [16, DELETED],
            "relative_attention_max_distance": [10, DELETED],
            "layer_norm_epsilon": [1e-2, DELETED],
            "dropout_rate": [0.3, DELETED],
            "feed_forward_proj": ["relu", "gated-silu", DELETED],
            "dense_act_fn": ["silu", DELETED],
            "is_gated_act": [False, DELETED],
            "scale_decoder_outputs": [True, DELETED],
            "initializer_factor": [0.5],
            "classifier_dropout": [0.5],
            "n_positions": [5],
            "task_specific_params": [{"summarization": {"prefix": "summarize: "}}],
        },
        GENERATION: SEARCH,
        SETTINGS: ANY_SETTINGS | {"extra_ids": [0, 4, DELETED]},
        SPECIAL: {
            "eos_token": ["<pad>"],
            "sep_token": [{"content": "<sep>", "lstrip": True, "rstrip": True}],
            "extra_special_tokens": [["<sep>"]],
            "additional_special_tokens": [["<sep>"]],
        },
        ADDED: {"<new>": [39], "<sep>": [50]},
    },
    "marian": {
        CONFIG: ANY_CONFIG
        | {
            "encoder_layers": [2, DELETED],
            "decoder_layers": [2, DELETED],
            "encoder_attention_heads": [4, DELETED],
            "decoder_attention_heads": [4],
            "encoder_ffn_dim": [20, DELETED],
            "decoder_ffn_dim": [20],
            "activation_function": ["relu", "mish", DELETED],
            "scale_embedding": [False, DELETED],
            "max_position_embeddings": [32],
            "dropout": [0.3],
            "attention_dropout": [0.3],
            "activation_dropout": [0.3],
            "encoder_layerdrop": [0.3],
            "init_std": [0.5],
            "decoder_vocab_size": [30, DELETED],
            "share_encoder_decoder_embeddings": [False, DELETED],
            "forced_eos_token_id": [5, DELETED],
            "bad_words_ids": [[[3]]],
            "normalize_before": [True],
        },
        # All rules of a search are in one program for both: these are read by another path.
        GENERATION: {
            key: SEARCH[key]
            for key in ("eos_token_id", "decoder_start_token_id", "max_length", "made_up")
        }
        | {"forced_eos_token_id": [DELETED], "bad_words_ids": [DELETED]},
        SETTINGS: ANY_SETTINGS
        | {"source_lang": ["de"], "target_lang": ["en"], "separate_vocabs": [True]},
        SPECIAL: {
            "eos_token": ["<pad>"],
            "sep_token": [{"content": "<sep>", "lstrip": True, "rstrip": True}],
            "extra_special_tokens": [["<sep>"]],
            "additional_special_tokens": [["<sep>"]],
        },
        ADDED: {"<new>": [39], "<sep>": [50]},
    },
}
CASES = [
    (family, file, key, value)
    for family, files in KEYS.items()
    for file, keys in files.items()
    for key, values in keys.items()
    for value in values
]
FOUND: collections.Counter[str] = collections.Counter()


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subjects")
    new = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    made = {
        "t5": sentence_folders.write_t5(
            folder / "t5", library=True, generation={"num_beams": 3}, **new, likely=1.0
        ),
        "marian": sentence_folders.write_marian(
            folder / "marian",
            generation={"bad_words_ids": [[52]], "num_beams": 2},
            scale_embedding=False,
            likely=2.0,
        ),
    }
    return {name: subject(folder) for name, folder in made.items()}


def subject(folder):
    """Outputs are searched anew only where a search is told something else: programs are slow."""
    usual = sentence_folders.searched_alike(imported.read_run(folder))
    searched = []

    def ours(read):
        told_otherwise = sentence_folders.searched_alike(read) != usual
        found = sentence_folders.ours(read, outputs=told_otherwise or not searched)
        searched.append("outputs" in found)
        return found

    def theirs(folder):
        return sentence_folders.theirs(folder, outputs=searched[-1])

    return Subject(folder, theirs, ours)


READ = {}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Weights are read once for each config; a job of these has all that there is."""
    read_source = imported.read_source

    def read_once(source, family, ignore):
        key = family.kinds, (source.where / CONFIG).read_bytes()
        if key not in READ:
            READ[key] = read_source(source, family, ignore)
        return READ[key]._replace(files=source.files, model=dict(READ[key].model))

    monkeypatch.setattr(imported, "read_source", read_once)
    monkeypatch.setattr(imported, "_of_the_job", lambda published, config: published)


@pytest.mark.parametrize(
    ("family", "file", "key", "value"),
    CASES,
    ids=[f"{family}-{file}-{key}-{place}" for place, (family, file, key, _) in enumerate(CASES)],
)
def test_a_key_is_honoured_or_named(subjects, family, file, key, value, tmp_path):
    FOUND[outcome(subjects[family], tmp_path / "changed", file, key, value)] += 1


def test_all_three_outcomes_are_there():
    """Of the part that is tried in the usual run as well as of all; not where some are chosen."""
    tried = sum(FOUND.values())
    if tried > len(CASES) / (2 * PART):
        assert all(FOUND[kind] > tried / 25 for kind in ("equal", "reported", "refused")), FOUND
