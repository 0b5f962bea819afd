"""Where the scripts and the configs are, and how a reader starts them.

In a checkout they lie beside the package, in a wheel inside of it.
"""

import re
import sys
from pathlib import Path

# The name in pyproject.toml; `transformer` alone is too near to `transformers` for an index.
DISTRIBUTION = "transformer-family"

_PACKAGE = Path(__file__).resolve().parent
IN_CHECKOUT = not (_PACKAGE / "scripts").is_dir()
_HOME = _PACKAGE.parent if IN_CHECKOUT else _PACKAGE
SCRIPTS = _HOME / "scripts"
CONFIGS = _HOME / "configs"


def as_typed(text: str) -> str:
    """A text for people in which commands are those that work where they are.

    Texts name the commands of a checkout. After `pip install` of a wheel, and for whoever types
    `transformer NAME`, that is what they become.
    """
    if not IN_CHECKOUT:
        text = re.sub(r"pip install -e '\.\[", f"pip install '{DISTRIBUTION}[", text)
    typed = {Path(word).stem for word in sys.orig_argv[1:3]}
    if IN_CHECKOUT and "transformer" not in typed:
        return text
    return re.sub(r"(python )?scripts/(\w+)\.py", r"transformer \2", text)
