"""Labelled texts that need no file: each module has a function `read`; see `data.labels`."""
