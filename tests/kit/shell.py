"""Runs commands of the documents as they are written, but for places and ports."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kit.documents import words

PROGRAMS = Path(sys.executable).parent
"""Where idpass-server, idpass and what is installed with them are."""


class Shell:
    """A folder to run commands in.

    Args:
        places: what stands for what in the documents, such as a port or a folder.
        env: variables beside those of this process.
    """

    def __init__(
        self, folder: Path, places: dict[str, str] | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.places = places or {}
        path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
        self.env = os.environ | {"PATH": path} | (env or {})

    def placed(self, block: str) -> str:
        for written, meant in self.places.items():
            block = block.replace(written, meant)
        return block

    def run(self, block: str) -> "subprocess.CompletedProcess[str]":
        """Runs a block to its end, which is to be a success."""
        done = subprocess.run(
            ["sh", "-euc", self.placed(block)],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
        return done

    def options(self, block: str) -> list[str]:
        """The options of a block that serves, on free ports."""
        program, command, *options = words(self.placed(block))
        assert (program, command) == ("idpass-server", "serve")
        return [re.sub(r"(?<=:)\d+$", "0", each) for each in options]

    @contextlib.contextmanager
    def running(self, block: str, event: str) -> Iterator[dict[str, Any]]:
        """Runs a block with one command until the test is done with it.

        Args:
            event: of the line in its log that is awaited, and given.
        """
        process = subprocess.Popen(
            words(self.placed(block)),
            cwd=self.folder,
            env=self.env,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            lines = map(json.loads, process.stderr)
            yield next(line for line in lines if line["event"] == event)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
