"""One file for each `config.optimizer.algorithm`.

Each file has a function `make(config, schedule, boxed, decayed)` that returns the update rule from
Optax, without clipping and per-parameter factors, which all rules share.
"""
