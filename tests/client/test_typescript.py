"""The TypeScript client's own tests, and the scenarios with it, against the real service.

`make typescript` installs what they need and builds the client; `make test` begins with it. Without
that, or without Node.js, they are skipped.
"""

from pathlib import Path

import pytest

from kit.certificates import Authority
from kit.typescript import CLIENT, missing, run_tests

WHY = missing()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)

SCENARIOS = Path(__file__).with_name("scenarios.json")
# With more than a service that runs: the first is run below, the other in tests/prove.
NOT_HERE = {"scenarios", "restart"}


def test_the_scenarios_go_as_the_table_says(address: str) -> None:
    run_tests("scenarios", IDPASS_ADDRESS=address, IDPASS_SCENARIOS=str(SCENARIOS))


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
