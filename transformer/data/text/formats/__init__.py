"""Files of texts that are not plain text.

Each module has `is_one(path)`, by the name of a file, and `read(path)`, which gives its documents:
lists of lines.
"""
