"""The architecture page names wings, files and words that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "server" / "idpass_server"
PAGE = (ROOT / "server" / "docs" / "architecture.md").read_text()


def test_the_map_has_every_wing_and_no_other() -> None:
    wings = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## The way")[0], re.MULTILINE)
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(wings) == folders


def test_every_file_and_name_on_the_page_exists() -> None:
    missing = []
    for row in PAGE.splitlines():
        names = re.findall(r"`((?:\w+/)*\w+\.(?:py|ts))`", row)
        files = [(ROOT if each.startswith("clients/") else PACKAGE) / each for each in names]
        missing += [path for path in files if not path.exists()]
        if (name := re.search(r"\.py`, `([\w.]+)` \|", row)) and files[0].exists():
            text = files[0].read_text()
            missing += [part for part in name[1].split(".") if part not in text]
    assert missing == []


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| (\w[\w ]*) \|", PAGE.partition("## Glossary")[2], re.MULTILINE)[1:]
    assert words == sorted(words, key=str.lower)
