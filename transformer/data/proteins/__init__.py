"""Proteins: sequences of residues, from files."""
