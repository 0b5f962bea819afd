"""Imported before the package: its annotations, shapes included, are checked at run time."""

import os
from importlib.metadata import version
from pathlib import Path

import jaxtyping
from beartype import BeartypeConf
from beartype.claw import beartype_package

from tests import shape_checks

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs run for milliseconds here: it takes longer to make them fast than to run them slow.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# Threads of PyTorch wait for each other in loops, and so take the cores from other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
QUICK = "--xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    # The older emitters compile in half the time. Later versions have none, and end at this flag.
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()

# Checking shapes makes each call of a function slower: only modules that name shapes pay for it.
ROOT = Path(__file__).parents[1]
SHAPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "transformer").rglob("*.py"))
    if "from jaxtyping import" in path.read_text("utf-8")
]
beartype_package("transformer", conf=BeartypeConf(claw_is_pep526=False))
jaxtyping.jaxtyped = shape_checks.jaxtyped
jaxtyping.install_import_hook(SHAPED, "beartype.beartype")
