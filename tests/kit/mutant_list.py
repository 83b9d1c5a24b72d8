"""The mutants that are written down in `prove/mutants`, a room a file."""

import ast
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from kit.paths import ROOT

FOLDER: Final = ROOT / "tests/prove/mutants"


class Mutant(NamedTuple):
    """One seeded bug.

    Attributes:
        room: the file that it is written down in.
        name: what the bug is; unique.
        file: where it is, from the root of the repository.
        old: the text that it replaces, which occurs once in the file.
        new: the text with the bug.
        tests: that must go red, as pytest takes them.
        survives: why it is harmless; "" for one that must not live.
    """

    room: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    def changed(self, text: str) -> str:
        """The file's text with the bug.

        Raises:
            ValueError: it does not apply.
        """
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: `old` occurs {count} times in {self.file}")
        with_bug = text.replace(self.old, self.new)
        if with_bug == text:
            raise ValueError(f"{self.name}: `new` is `old`")
        return with_bug


def written_down(folder: Path = FOLDER) -> list[Mutant]:
    """All mutants, by room and in the order of its file."""
    return [
        Mutant(path.stem, **entry | {"tests": tuple(entry["tests"])})
        for path in sorted(folder.glob("*.toml"))
        for entry in tomllib.loads(path.read_text())["mutant"]
    ]


def chosen(words: Sequence[str]) -> list[Mutant]:
    """The mutants of rooms, by names, or one part of several (2/5); all without a word."""
    mutants = written_down()
    if not words:
        return mutants
    found: dict[str, Mutant] = {}
    for word in words:
        part, slash, parts = word.partition("/")
        some = (
            mutants[int(part) - 1 :: int(parts)]
            if slash
            else [each for each in mutants if word in (each.room, each.name)]
        )
        if not some:
            raise SystemExit(f"there is no mutant and no room {word!r}")
        found |= {each.name: each for each in some}
    return list(found.values())


def compiles(mutant: Mutant) -> None:
    """Checks that a mutant applies, and that its file still has the form that it must have.

    Raises:
        ValueError: it does not apply.
        SyntaxError: it is no Python.
    """
    path = ROOT / mutant.file
    text = mutant.changed(path.read_text())
    if path.suffix == ".py":
        ast.parse(text)
