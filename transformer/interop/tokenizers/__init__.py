"""Builds tokenizers of published models from all their files."""
