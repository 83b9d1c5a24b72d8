"""The documents as text, and the blocks of code in them."""

import re
from typing import Final

from kit.paths import ROOT

README: Final = (ROOT / "README.md").read_text()
PATHS: Final = (
    ROOT / "README.md",
    *sorted((ROOT / "server/docs").glob("*.md")),
    *sorted((ROOT / ".github").glob("*.md")),
)
PAGES: Final = {path.name: path.read_text() for path in PATHS}


def blocks(language: str, text: str = README) -> list[str]:
    """The text of each fenced block in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
