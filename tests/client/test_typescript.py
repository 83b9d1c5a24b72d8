"""The TypeScript client's own tests, and the scenarios with it, against the real service.

`make typescript` installs what they need and builds the client; `make test` begins with it. Without
that, or without Node.js, they are skipped.
"""

import re
from pathlib import Path

import pytest

from idpass import IdPassError
from kit.certificates import Authority
from kit.typescript import CLIENT, missing, run_tests

WHY = missing()
built = pytest.mark.skipif(bool(WHY), reason=WHY)

SCENARIOS = Path(__file__).with_name("scenarios.json")
# With more than a service that runs: the first is run below, the other in tests/prove.
NOT_HERE = {"scenarios", "restart"}


@built
def test_the_scenarios_go_as_the_table_says(address: str) -> None:
    run_tests("scenarios", IDPASS_ADDRESS=address, IDPASS_SCENARIOS=str(SCENARIOS))


@built
def test_its_own_tests_pass(address: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    server, caller = authority.issue("localhost"), authority.issue("spiffe://here/caller")
    names = {path.name.removesuffix(".test.mts") for path in CLIENT.glob("test/*.test.mts")}
    run_tests(
        *sorted(names - NOT_HERE),
        IDPASS_ADDRESS=address,
        IDPASS_CA=str(authority.path),
        IDPASS_OTHER_CA=str(Authority(tmp_path / "others").path),
        IDPASS_SERVER_PAIR=f"{server.cert}:{server.key}",
        IDPASS_CALLER_PAIR=f"{caller.cert}:{caller.key}",
    )


def test_both_clients_have_one_tree_of_errors() -> None:
    source = (CLIENT / "src/errors.ts").read_text()
    classes = dict(re.findall(r"^export class (\w+) extends (\w+) \{", source, re.MULTILINE))
    named = re.findall(r'^  override readonly name: string = "(\w+)";', source, re.MULTILINE)
    drawn = re.findall(r"^ \*     ([│├└─ ]*)(\w+)", source, re.MULTILINE)

    def walk(kind: type[Exception], depth: int) -> list[tuple[str, int]]:
        below = [walk(child, depth + 1) for child in kind.__subclasses__()]
        return [(kind.__name__, depth), *(each for several in below for each in several)]

    ours = {child.__name__: kind.__name__ for kind, child in pairs(IdPassError)}
    assert classes == {"IdPassError": "Error", **ours}
    assert named == list(classes)
    assert [(name, len(lines) // 4) for lines, name in drawn] == walk(IdPassError, 0)


def pairs(kind: type[Exception]) -> list[tuple[type[Exception], type[Exception]]]:
    """Each class below one, after that which it extends."""
    children = kind.__subclasses__()
    return [(kind, child) for child in children] + [p for child in children for p in pairs(child)]
