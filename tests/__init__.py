"""Imported before the package: its annotations, shapes included, are checked at run time."""

import os

import jaxtyping

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs run for milliseconds here: it takes longer to make them fast than to run them slow.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# The older emitters compile in half the time. Should a newer JAX not know a flag, it ends with a
# message that names it: take it out here.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()
jaxtyping.install_import_hook("transformer", "beartype.beartype")
