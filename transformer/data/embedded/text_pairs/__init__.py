"""Pairs of texts that need no file: each module has a function `read`; see `pairs.sources`."""
