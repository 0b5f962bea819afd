"""From bytes to text, numbers and JSON, and no more of them than anybody needs."""
