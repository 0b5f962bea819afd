"""What README.md and the pages of docs/ hold: blocks, links, commands."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The same as `python scripts/NAME.py`.
_COMMAND = re.compile(r"\s*transformer (?!completion)(\w+) ")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


class Block(NamedTuple):
    """What follows the three marks, and the lines between."""

    head: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is a part of; None for one that stands alone."""
        found = re.search(r'title="([^"]+)"', self.head)
        return found[1] if found else None


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall(page.read_text("utf-8"))]


def python(page: Path) -> list[str]:
    """The blocks that run, in the order of the page."""
    return [block.text for block in blocks(page) if block.head == "python"]


def links(page: Path) -> list[str]:
    text = _BLOCK.sub("", page.read_text("utf-8"))
    return [link for link in _LINK.findall(text) if not link.startswith("http")]


def commands(page: Path) -> list[list[str]]:
    """The words of each command that starts a script, from its path on."""
    found = []
    for block in blocks(page):
        if block.head.strip() in ("", "bash"):
            for line in block.text.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|", line):
                    if "python scripts/" in part:
                        words = shlex.split(part, comments=True)
                        end = next((n for n, word in enumerate(words) if word in "<>"), len(words))
                        found.append(words[words.index("python") + 1 : end])
                    elif (started := _COMMAND.match(part)) is not None:
                        words = shlex.split(part, comments=True)
                        found.append([f"scripts/{started[1]}.py", *words[2:]])
    return found
