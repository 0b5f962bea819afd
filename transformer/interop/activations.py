"""Published names of activations: one table for all families."""

from transformer.errors import ConfigError
from transformer.interop.side_files import SideFile

# Maps names of the library `transformers` to ours; the first of several published names is written.
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
    """Reads an activation from a config; returns our name of it.

    Args:
        config: the config of the model.
        key: the key of the activation.
        usual: the published name to assume if the key is missing.

    Raises:
        DataError: if the activation is unknown here.
    """
    return ACTIVATIONS[config.one_of(key, usual, ACTIVATIONS)]


def published_activation(ours: str, *preferred: str) -> str:
    """The published name of an activation.

    Args:
        ours: its name here.
        *preferred: published names that the family prefers.

    Raises:
        ConfigError: if it has no published name.
    """
    for theirs in (*preferred, *ACTIVATIONS):
        if ACTIVATIONS[theirs] == ours:
            return theirs
    raise ConfigError(f"config.model.activation {ours!r} has no name in published models.")
