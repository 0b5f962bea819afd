"""Scores of outputs, as each field defines them."""
