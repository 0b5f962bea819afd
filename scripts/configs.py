"""Lists the configs: what each trains, its variants, and what it needs.

python scripts/configs.py
python scripts/configs.py gpt_char
"""

import ast
import inspect
import re
from pathlib import Path

from absl import flags

from transformer import command_line
from transformer.commands import shipped_configs, variants
from transformer.errors import ConfigError
from transformer.installed import as_typed

flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main(*names: str) -> int:
    """Prints the table, or the whole head of some configs."""
    from transformer.fields import unknown_name

    heads = {name: _head(path) for name, path in shipped_configs().items()}
    for name in names:
        if Path(name).stem not in heads:
            raise ConfigError(unknown_name("configs/", name, heads))
    if command_line.FLAGS.json:
        chosen = [Path(name).stem for name in names] or list(heads)
        command_line.print_json({name: heads[name] for name in chosen})
    elif names:
        print(as_typed("\n\n".join(heads[Path(name).stem] for name in names)))
    else:
        _show(heads)
    return 0


def _head(path: Path) -> str:
    return inspect.cleandoc(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")


def _show(heads: dict[str, str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    for name, head in heads.items():
        found = "".join(f" [cyan]:{each}[/]" for each in variants(shipped_configs()[name]))
        needs = _needs(head)
        extras = f"  [dim]needs \\[{needs}][/]" if needs else ""
        console.print(f"[bold]configs/{name}.py[/]{found}{extras}\n    {escape(_title(head))}")
    print(as_typed("\npython scripts/configs.py NAME shows what was measured, and the commands."))


def _title(head: str) -> str:
    return " ".join(head.partition("\n\n")[0].split())


def _needs(head: str) -> str:
    """The extras of the package that the head names in its line on installation."""
    found = re.search(r"pip install -e '\.\[([\w,]+)\]'", head)
    # Every job can write TensorBoard's files.
    extras = found[1].split(",") if found else []
    return ",".join(extra for extra in extras if extra != "tensorboard")


if __name__ == "__main__":
    command_line.run(main, takes_arguments=True)
