"""What lies beside the weights of a published encoder: tokenizer, and how texts become vectors."""

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from transformer.data.text.embeddings import EMBEDDING_FILE, load_embedding
from transformer.data.tokenizers.pieces import NAME_KEYS, EncoderTokenizer
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.files import write_json, write_text
from transformer.interop.sentence_transformers import write_embedding
from transformer.tasks.masked_lm import MaskedLM
from transformer.tasks.parts.encoder import EncoderTask
from transformer.tasks.tagging import Tagging
from transformer.tasks.text_classification import TextClassification


def problem_of(task: Any, num_outputs: int) -> str | None:
    """What the outputs of a classifier of texts are, as published models say it; None of others."""
    if not isinstance(task, TextClassification):
        return None
    if task.multi_label:
        return "multi_label_classification"
    if task.regression:
        # Theirs squash a single number where nothing is said of it.
        return None if task.sigmoid else "regression"
    return "single_label_classification" if num_outputs > 1 else None


def write_encoder(
    task: EncoderTask, tokenizer: EncoderTokenizer, model: Any, workdir: Path, folder: Path
) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json`, and what makes vectors if the run says so.

    Args:
        task: of the run.
        tokenizer: of the run.
        model: of the run.
        workdir: the run.
        folder: where to write.
    """
    write_text(folder / TOKENIZER_FILE, _tokenizer_text(task, tokenizer))
    names = tokenizer.names._asdict()
    types = ["token_type_ids"] if tokenizer.second_type else []
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": min(task.max_length, model.context),
        "model_input_names": ["input_ids", *types, "attention_mask"],
        **{key: names[field] for field, key in NAME_KEYS.items()},
        "do_lower_case": tokenizer.lowercase,
        # Masks are found in a text whatever else is.
        "split_special_tokens": not (task.special_tokens or isinstance(task, MaskedLM)),
    }
    if tokenizer.separators > 1:
        # RoBERTa calls two of them by further names.
        settings |= {"bos_token": names["start"], "eos_token": names["separator"]}
    write_json(folder / "tokenizer_config.json", settings)
    if (workdir / EMBEDDING_FILE).is_file():
        write_embedding(load_embedding(workdir), model.width, folder)


def _tokenizer_text(task: EncoderTask, tokenizer: EncoderTokenizer) -> str:
    """The tokenizer as the task uses it."""
    text = tokenizer.to_json()
    library = tokenizers.Tokenizer.from_str(text)
    spaces = library.pre_tokenizer
    if not isinstance(task, Tagging) or not isinstance(spaces, pre_tokenizers.ByteLevel):
        return text
    library.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=spaces.add_prefix_space or task.first_space, use_regex=spaces.use_regex
    )
    return library.to_str(pretty=True)
