"""Writes the protos, and those of Google's that they need, into a folder of their own.

python -m idpass.v1.export DIR
"""

import argparse
import shutil
import sys
from pathlib import Path

from idpass.v1 import PROTO_DIR


def export(folder: Path) -> None:
    """Copies PROTO_DIR.

    Args:
        folder: a new or empty folder; the folders above it are made too.

    Raises:
        FileExistsError: it is a file, or a folder that is not empty.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError("it is not empty; name a new folder, or empty this one")
    shutil.copytree(PROTO_DIR, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)


def main() -> None:
    """Exits 0, 1 if the folder is not empty or cannot be written, or 2 if none is named."""
    parser = argparse.ArgumentParser(prog="python -m idpass.v1.export", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a new or empty folder")
    folder = parser.parse_args().folder
    if not folder:
        parser.error("DIR is empty; name a new folder")
    try:
        export(Path(folder))
    except OSError as error:
        sys.exit(f"Cannot write the protos to {folder}: {error.strerror or error}")


if __name__ == "__main__":
    main()
