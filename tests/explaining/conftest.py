"""Each run is made once, and its trace computed once."""

import numpy as np
import pytest

from tests.explaining.tiny import PROMPTS, RUNS
from transformer import explaining
from transformer.explaining.pictures import png


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    known = {}

    def run(name):
        if name not in known:
            known[name] = RUNS[name](tmp_path_factory.mktemp("runs") / name)
        return known[name]

    return run


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    path = tmp_path_factory.mktemp("images") / "cat.png"
    path.write_bytes(png(pixels))
    return path, pixels


@pytest.fixture(scope="session")
def trace_of(run_of, picture):
    known = {}

    def trace(name):
        if name not in known:
            prompt = (str(picture[0]), None) if name == "vit" else PROMPTS[name]
            known[name] = explaining.trace(run_of(name), *prompt)
        return known[name]

    return trace
