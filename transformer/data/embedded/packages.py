"""Finds the data files of installed packages without importing these."""

import importlib.util
from pathlib import Path


def package_folder(name: str) -> Path | None:
    """The folder of a package; None if it is not installed."""
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
