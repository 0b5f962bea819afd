"""Estimates what training would require, without training."""
