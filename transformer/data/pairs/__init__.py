"""Pairs of texts: files, texts and batches."""
