"""Imported before the package: its annotations, shapes included, are checked at run time."""

import os
from importlib.metadata import version

import jaxtyping

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs run for milliseconds here: it takes longer to make them fast than to run them slow.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
QUICK = "--xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    # The older emitters compile in half the time. Later versions have none, and end at this flag.
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()
jaxtyping.install_import_hook("transformer", "beartype.beartype")
