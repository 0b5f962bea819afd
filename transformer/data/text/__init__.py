"""Plain text: streams of tokens, rows, documents, and what is hidden in them."""
