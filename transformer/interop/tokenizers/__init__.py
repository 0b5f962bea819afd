"""Tokenizers of published models, made of all files that speak of them."""
