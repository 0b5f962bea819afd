"""The transformer family in JAX and Flax, from one small set of composable parts."""

__version__ = "0.1.0"
