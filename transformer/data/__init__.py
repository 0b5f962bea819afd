"""From files to batches: sources, tokenizers and pipelines."""
