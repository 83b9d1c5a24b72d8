"""Promise: whatever strangers send is refused in documented words, or taken for what it says.

Means: coverage-guided fuzzing (atheris, on libFuzzer) of what reads their bytes, in this process
without a server: the requests of every rpc up to the engine, page tokens, the callers file, the
gateway from head and body to the call of the service, and `idpass.webhooks.verify`. Inputs begin
with real messages and are changed; one that reaches a new branch is kept and changed further. Each
target (tests/kit/guided) says more than "no crash": only documented errors, in words with nothing
internal in them, and short enough; what is taken is within the contract's limits, says what was
sent, and is read the same when it is written anew; nothing is taken that was not signed.

Controls: for each target the product with one line taken for another, such as a comparison of the
first characters alone, which must be found within a stated number of inputs.

Blind spots: bytes are read one input at a time, so nothing that needs two calls, or two threads, is
found; inputs have at most 4,096 bytes; what C code reads (protobuf, JSON, HTTP heads) does not
guide. A signature is not forged by trying; that another is not taken follows from computing each
one that was taken anew. security/test_fuzz.py sends payloads to the real server.
"""

import os
import random
from pathlib import Path

import pytest

from kit.guided.flaws import FLAWS, Flaw, flawed
from kit.guided.fuzzing import fuzz
from kit.proving import MINUTES, times
from kit.support import report

SECONDS = int(os.environ.get("FUZZ_SECONDS", "0"))
SEED = random.getrandbits(31) if MINUTES > 3 or SECONDS else 14
SHARES = {"requests": 5, "page_tokens": 7, "callers_file": 2, "gateway": 2, "webhooks": 4}
"""Of 20 inputs, those of each target; the quicker it is, the more."""
INPUTS = times(every_day=20_000, a_minute=20_000)

pytest.importorskip("atheris", reason="there is no wheel of atheris for this Python or machine")


@pytest.mark.parametrize("name", SHARES)
def test_no_input_breaks_a_promise(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    inputs = -1 if SECONDS else INPUTS * SHARES[name] // 20
    run = fuzz(name, tmp_path, seed=SEED, inputs=inputs, seconds=SECONDS // len(SHARES))
    title = f"Guided fuzz, seed {SEED}"
    line = f"{run.inputs:12,} inputs, {run.branches:6,} branches, {run.took_s:5.0f} s  {name}"
    report(request, title, line)
    assert not run.why, f"kit.guided.{name}.check({run.data!r})\n{run.why}"
    assert run.inputs >= inputs


@pytest.mark.parametrize(
    ("name", "flaw"),
    [(name, flaw) for name, flaws in FLAWS.items() for flaw in flaws],
    ids=lambda value: value.what if isinstance(value, Flaw) else "",
)
def test_a_flaw_is_found(
    name: str, flaw: Flaw, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    product = flawed(flaw, tmp_path / "product")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run = fuzz(name, scratch, seed=14, inputs=flaw.within, product=product)
    report(request, "Guided fuzz, controls", f"{run.inputs:12,} inputs: {name}, {flaw.what}")
    assert run.why
