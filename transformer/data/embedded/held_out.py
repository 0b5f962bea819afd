"""Decides what is kept for validation, by a name or a text alone and so the same everywhere."""

import hashlib


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a text is among the fraction of all texts that is kept for validation."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return number < fraction * 2**64
