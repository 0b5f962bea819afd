"""The command `transformer`: starts the scripts from any folder.

transformer train --config=gpt_char --workdir=runs/gpt_char
"""

import runpy
import sys

# Import nothing here that imports JAX: the script that is started handles signals first.
from transformer import __version__
from transformer.commands import commands
from transformer.completion import SHELLS
from transformer.errors import ConfigError
from transformer.installed import DISTRIBUTION, SCRIPTS

_USAGE = """\
The transformer family in JAX and Flax.

Usage: transformer COMMAND --flag=value ...

{commands}

transformer COMMAND --help lists the flags of a command.
transformer completion bash writes what completes commands, flags and configs; so does zsh.
transformer --version names the versions of what takes part.
"""


def main() -> None:
    """Runs what the first argument names."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_usage(), end="")
    elif name == "--version":
        print(_versions())
    elif name == "completion" and rest and rest[0] in SHELLS:
        print(SHELLS[rest[0]](commands()), end="")
    elif (path := SCRIPTS / f"{name}.py").is_file() and name.isidentifier():
        sys.argv = [str(path), *rest]
        runpy.run_path(str(path), run_name="__main__")
    else:
        print(f"error: {_unknown(name)}", file=sys.stderr)
        sys.exit(ConfigError.exit_code)


def _usage() -> str:
    table = "\n".join(f"  {each.name:<16} {each.title}" for each in commands())
    return _USAGE.format(commands=table)


def _versions() -> str:
    from importlib.metadata import version

    others = [f"{name} {version(name)}" for name in ("jax", "jaxlib", "flax")]
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"{DISTRIBUTION} {__version__}", *others, f"Python {python}"])


def _unknown(name: str) -> str:
    if name == "completion":
        return f"for which shell? transformer completion {' or '.join(SHELLS)}"
    from transformer.fields import unknown_name

    return unknown_name("transformer", name, [each.name for each in commands()])


if __name__ == "__main__":
    main()
