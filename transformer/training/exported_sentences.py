"""What lies beside the weights of a published encoder-decoder: tokenizer, and how it searches."""

import json
from pathlib import Path
from typing import Any

from transformer.data.marian_tokenizers import MarianTokenizer
from transformer.data.sentence_tokenizers import SentencePieceTokenizer, SentenceTokenizer
from transformer.data.tokenizers import TOKENIZER_FILE
from transformer.interop.t5 import SENTENCEPIECE
from transformer.interop.tokenizer_files import with_end
from transformer.tasks.base_pairs import PairTask

# Sentinels that published T5s have behind their own tokens.
_NUM_SENTINELS = 100


def write_sentences(task: Any, model: Any, tokenizer: SentenceTokenizer, folder: Path) -> None:
    """Writes the tokenizer's files, `tokenizer_config.json` and `generation_config.json`.

    Args:
        task: of the run.
        model: an encoder-decoder.
        tokenizer: of the run.
        folder: the folder.
    """
    begin = model.begin_token()
    begin = tokenizer.end if begin is None else begin
    words = {
        "model_max_length": task.max_length,
        "eos_token": tokenizer.tokens([tokenizer.end])[0],
    }
    if begin < tokenizer.vocab_size:
        words["pad_token"] = tokenizer.tokens([begin])[0]
    if isinstance(tokenizer, MarianTokenizer):
        tokenizer.save(folder)
        words |= {"tokenizer_class": "MarianTokenizer", "separate_vocabs": False}
    elif isinstance(tokenizer, SentencePieceTokenizer):
        (folder / SENTENCEPIECE).write_bytes(tokenizer.content)
        room = max(0, (model.vocab_size or 0) - tokenizer.vocab_size)
        words |= {"tokenizer_class": "T5Tokenizer", "extra_ids": min(room, _NUM_SENTINELS)}
    else:
        text = with_end(tokenizer.to_text(), tokenizer.end)
        (folder / TOKENIZER_FILE).write_text(text, "utf-8")
        words |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    _write_json(folder / "tokenizer_config.json", words)
    search = {
        "decoder_start_token_id": begin,
        "pad_token_id": begin,
        "eos_token_id": tokenizer.end,
    }
    if model.unwritten_tokens():
        search["bad_words_ids"] = [[token] for token in model.unwritten_tokens()]
    if isinstance(task, PairTask):
        # Theirs counts the token that begins a target.
        longest = task.longest_target or task.max_length + task.output_limits()["extra_length"]
        search |= {"num_beams": task.beam_size, "max_length": longest + 1}
        search |= {"forced_eos_token_id": tokenizer.end}
    _write_json(folder / "generation_config.json", search)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
