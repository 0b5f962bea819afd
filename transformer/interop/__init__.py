"""Imports and exports weights of published models: one file for each format and family."""
