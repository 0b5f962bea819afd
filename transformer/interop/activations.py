"""What published models call activations: one table for all families."""

from transformer.errors import ConfigError
from transformer.interop.side_files import SideFile

# Our name by theirs, as the library `transformers` has them; the first of several is written.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
}


def activation(config: SideFile, key: str, usual: str) -> str:
    """Our name of an activation in a config.

    Args:
        config: of the model.
        key: the activation stands under.
        usual: their name, where the key is missing.

    Raises:
        DataError: if it is not known here.
    """
    return ACTIVATIONS[config.one_of(key, usual, ACTIVATIONS)]


def published_activation(ours: str, *preferred: str) -> str:
    """The published name of an activation.

    Args:
        ours: its name here.
        *preferred: published names that a family writes before others.

    Raises:
        ConfigError: if it has no published name.
    """
    for theirs in (*preferred, *ACTIVATIONS):
        if ACTIVATIONS[theirs] == ours:
            return theirs
    raise ConfigError(f"config.model.activation {ours!r} has no name in published models.")
