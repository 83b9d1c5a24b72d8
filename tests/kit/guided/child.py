"""Runs one target under atheris: `python -m kit.guided.child TARGET FOLDER` and libFuzzer's flags.

A process of its own, since libFuzzer ends the one it runs in. FOLDER gets the target's seeds and
words, and what is wrong with the input that ends the run.
"""

import importlib
import random
import sys
import traceback
from pathlib import Path
from typing import Any

import atheris

from idpass_server import logs

TRACED = ["idpass_server", "idpass.webhooks", "idpass._http_json", "idpass._read", "tomllib", "kit"]

BY_BYTES = 0.5
"""Share of inputs that libFuzzer itself changes."""


def main() -> None:
    name, scratch, *flags = sys.argv[1:]
    folder = Path(scratch)
    logs.configure_lines("critical")
    with atheris.instrument_imports(include=TRACED):
        target: Any = importlib.import_module(f"kit.guided.{name}")
    for seed in target.SEEDS:
        assert target.check(seed), seed
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    inputs = [*target.SEEDS, *target.MORE]
    for number, seed in enumerate(inputs):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS))

    def check(data: bytes) -> None:
        try:
            target.check(data)
        except BaseException:
            (folder / "why").write_text(traceback.format_exc())
            raise

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < BY_BYTES:
            return bytes(atheris.Mutate(data, max_size))
        changed: bytes = target.mutate(data, chance)
        return changed[:max_size]

    own = [f"-dict={words}", f"-artifact_prefix={folder}/", "-print_final_stats=1", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *own, *flags, str(corpus)], check, custom_mutator=mutate)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
