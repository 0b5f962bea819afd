"""Tagged sentences that need no file: each module has a function `read`; see `labels.sources`."""
