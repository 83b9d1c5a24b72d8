"""The documents as text, their blocks of code, and the tests that they name."""

import re
import shlex
from collections.abc import Iterator
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


def command(page: str, beginning: str) -> str:
    """The one block of commands on a page that begins with some text."""
    (found,) = (each for each in blocks("sh", PAGES[page]) if each.startswith(beginning))
    return found


def words(block: str) -> list[str]:
    """The words of a block with one command, as a shell takes them."""
    return shlex.split(block.replace("\\\n", " "))


def spans(text: str) -> Iterator[str]:
    """Each piece of inline code, in one line."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", text):
        yield " ".join(span.split())


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of a table, without its head.

    Args:
        title: the head of the first column, and what follows it up to the end of the line.
    """
    table = text.partition(f"| {title}")[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def named_tests(text: str) -> set[str]:
    """The tests that a text names, as `folder/file.py::test`."""
    return set(re.findall(r"\b(\w+/test_\w+\.py::\w+)", text))


def is_a_test(name: str) -> bool:
    """Whether there is a test that goes by such a name."""
    path, _, function = name.partition("::")
    file = ROOT / "tests" / path
    definition = re.compile(rf"^(?:async )?def {function}\(", re.MULTILINE)
    return file.is_file() and bool(definition.search(file.read_text()))
