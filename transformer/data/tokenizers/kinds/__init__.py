"""A file for each kind of tokenizer, with its `KIND`; see `tokenizers.choosing`."""
