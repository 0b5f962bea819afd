"""The mathematics of transformers as pure array functions: no parameters, no Flax, no config."""
