"""Settings in `tokenizer_config.json` that do not affect the tokens of T5 or Marian."""

# The tokenizer of the first published T5s.
SENTENCEPIECE = "spiece.model"

IRRELEVANT = {
    **dict.fromkeys(("add_bos_token", "add_eos_token"), "the tokens around texts are fixed"),
    "chat_template": "there are no chats",
    "errors": "of other tokenizers",
    "legacy": "the present library ignores it",
    "model_input_names": "what else is returned",
    "unk_id": "numbers are in the tokenizer",
}
# Settings without effect if they have these default values.
USUAL = {
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": False,
    "do_lower_case": False,
    # Padding before a text would shift its positions.
    "padding_side": "right",
    "sp_model_kwargs": {},
    "split_special_tokens": False,
    "truncation_side": "right",
}
