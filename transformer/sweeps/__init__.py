"""Sweeps: many runs of one config with different overrides, and their results."""
