"""Weights of published models, in and out: one file for each format and family."""
