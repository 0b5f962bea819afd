"""Puts scripts/ and configs/ into the package of a wheel; pyproject.toml says the rest."""

from setuptools import find_packages, setup

SHIPPED = {"transformer.scripts": "scripts", "transformer.configs": "configs"}

setup(packages=[*find_packages(include=["transformer*"]), *SHIPPED], package_dir=SHIPPED)
