"""Compiled programs kept between runs, cases of which a part is tried, and a tiny GPT."""

import gc
import os
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from hypothesis import settings

from tests.common import noisy_parameters
from transformer.caches import cache_folder

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tests")

# Where the processes of the end-to-end tests have theirs, too.
COMPILED = cache_folder() / "tests" / "transformer" / "compiled"
jax.config.update("jax_compilation_cache_dir", str(COMPILED))
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_sessionstart():
    """Looks for garbage less often, and hides what a failed save drags behind it.

    Tracing makes many small objects, and a search for garbage goes through all compiled programs.
    """
    gc.set_threshold(100_000, 20, 20)
    # In threads of Orbax, as scripts do.
    report = sys.unraisablehook

    def without_closed_loops(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = without_closed_loops


def pytest_sessionfinish():
    """Spares the programs that are left at the end a last search for garbage, and a second one.

    pytest and Python each go through millions of objects that end with the process anyway.
    """
    gc.freeze()


def pytest_configure(config):
    config.addinivalue_line("markers", "sampled(part): tries one of so many cases, or ALL_CASES=1")


def pytest_collection_modifyitems(config, items):
    """Of the cases of a test that is marked `sampled(n)` the usual run tries each n-th.

    Such cases are many of one kind, and each compiles programs of its own. Always the same ones are
    tried, the first among them; `ALL_CASES=1` tries all.
    """
    if os.environ.get("ALL_CASES"):
        return
    seen, left = Counter(), set()
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark is not None:
            test = (item.path, item.originalname)
            if seen[test] % mark.args[0]:
                left.add(item)
            seen[test] += 1
    if left:
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def gpt():
    # Here, because most processes that try a few tests need none.
    from transformer.models.gpt import GPT

    return GPT(
        vocab_size=11, num_layers=2, num_heads=2, width=16, context=16, feed_forward_width=32
    )


@pytest.fixture(scope="session")
def gpt_params(gpt):
    return noisy_parameters(gpt, jnp.zeros((1, 16), int))


@pytest.fixture(scope="session")
def gpt_logits(gpt, gpt_params):
    """Logits of whole sequences, compiled once for each shape."""

    @jax.jit
    def logits(tokens):
        return gpt.apply({"params": gpt_params}, tokens)[0]

    return logits
