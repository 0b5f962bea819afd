"""Imported before the package: its annotations, shapes included, are checked at run time."""

import os

import jaxtyping

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs run for milliseconds here: it takes longer to make them fast than to run them slow.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
jaxtyping.install_import_hook("transformer", "beartype.beartype")
