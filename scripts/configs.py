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
from transformer.errors import ConfigError

FOLDER = Path(__file__).resolve().parent.parent / "configs"

flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main(*names: str) -> int:
    """Prints the table, or the whole head of some configs."""
    from transformer.fields import unknown_name

    heads = {path.stem: _head(path) for path in sorted(FOLDER.glob("*.py"))}
    for name in names:
        if Path(name).stem not in heads:
            raise ConfigError(unknown_name("configs/", name, heads))
    if command_line.FLAGS.json:
        chosen = [Path(name).stem for name in names] or list(heads)
        command_line.print_json({name: heads[name] for name in chosen})
    elif names:
        print("\n\n".join(heads[Path(name).stem] for name in names))
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
        path = FOLDER / f"{name}.py"
        variants = "".join(f" [cyan]:{variant}[/]" for variant in _variants(path))
        needs = _needs(head)
        extras = f"  [dim]needs \\[{needs}][/]" if needs else ""
        console.print(f"[bold]configs/{name}.py[/]{variants}{extras}\n    {escape(_title(head))}")
    print("\npython scripts/configs.py NAME shows what was measured, and the commands.")


def _title(head: str) -> str:
    return " ".join(head.partition("\n\n")[0].split())


def _variants(path: Path) -> list[str]:
    """The names that may follow a colon."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and ast.unparse(node.targets[0]) == "VARIANTS"
        ):
            return [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def _needs(head: str) -> str:
    """The extras of the package that the head names in its line on installation."""
    found = re.search(r"pip install -e '\.\[([\w,]+)\]'", head)
    # Every job can write TensorBoard's files.
    extras = found[1].split(",") if found else []
    return ",".join(extra for extra in extras if extra != "tensorboard")


if __name__ == "__main__":
    command_line.run(main, takes_arguments=True)
