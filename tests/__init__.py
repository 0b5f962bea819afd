"""Imported before the package: its annotations, shapes included, are checked at run time."""

import os

import jaxtyping

os.environ.setdefault("JAX_PLATFORMS", "cpu")
jaxtyping.install_import_hook("transformer", "beartype.beartype")
