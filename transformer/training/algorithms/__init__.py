"""One file for each `config.optimizer.algorithm`.

Each has a function `make(config, schedule, boxed, decayed)`: the update rule from Optax, without
clipping and factors of single parameters, which all rules share.
"""
