"""Linen modules: they hold parameters and call `ops`."""
