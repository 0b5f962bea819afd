"""Data that come with Python or a package, so that nothing must be downloaded."""
