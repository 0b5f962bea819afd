"""Plain text: streams of tokens, rows, documents, and masking."""
