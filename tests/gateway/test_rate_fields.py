"""RateLimit and RateLimit-Policy: what is left of a caller's rate, to those who ask over HTTP."""

import re
from pathlib import Path

import httpx
import pytest

from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.api import rate_fields
from idpass_server.api.rate import Left, Limit, Rate
from kit.guarded import caller
from kit.http import detail, reason, served
from kit.support import UNKNOWN_ID, make_accounts

LIMIT = re.compile(r'"rate";r=(\d+)(?:;t=(\d+))?')


def left(response: httpx.Response) -> tuple[int, int]:
    """The tokens left, and the seconds until there is one more; 0 for a full bucket."""
    found = LIMIT.fullmatch(response.headers["ratelimit"])
    assert found, response.headers
    return int(found[1]), int(found[2] or 0)


@pytest.mark.parametrize(
    ("limit", "now", "policy", "told"),
    [
        (Limit(100, 200), Left(200, 0), '"rate";q=200;w=2', '"rate";r=200'),
        (Limit(100, 200), Left(17, 0.004), '"rate";q=200;w=2', '"rate";r=17;t=1'),
        (Limit(100, 20), Left(20, 0), '"rate";q=100;w=1', '"rate";r=20'),
        (Limit(100, 250), Left(0, 3.2), '"rate";q=300;w=3', '"rate";r=0;t=4'),
        (Limit(0.1, 1), Left(0, 9.5), '"rate";q=1;w=10', '"rate";r=0;t=10'),
        (Limit(0.3, 1), Left(1, 0), '"rate";q=1;w=4', '"rate";r=1'),
        (Limit(0.7, 63), Left(63, 0), '"rate";q=63;w=90', '"rate";r=63'),  # 62.99… by floats
        (Limit(1e18, 10), Left(10, 0), '"rate";q=999999999999999;w=1', '"rate";r=10'),
    ],
)
def test_a_bucket_is_told_as_a_quota_and_a_window(
    limit: Limit, now: Left, policy: str, told: str
) -> None:
    assert rate_fields.fields(limit, now) == (("ratelimit-policy", policy), ("ratelimit", told))


def test_what_is_left_is_what_can_be_taken_and_comes_back_when_it_says() -> None:
    limit = Limit(0.5, 4)
    rate = Rate(limit)

    def left_at(now_s: float) -> tuple[int, float]:
        now = rate.left("a", now_s, limit)
        return now.tokens, round(now.next_s, 6)

    assert left_at(100.0) == (4, 0)
    for tokens in (3, 2, 1, 0):
        assert rate.take("a", 100.0)
        assert left_at(100.0) == (tokens, 2.0)
    assert not rate.take("a", 101.9)
    assert left_at(101.5) == (0, 0.5)
    assert left_at(102.0) == (1, 2.0)
    rate.owe("a", 5)
    assert left_at(102.0) == (0, 10.0)
    assert rate.wait_s("a", 102.0) == pytest.approx(10.0)


def test_answers_and_errors_say_what_is_left(tmp_path: Path) -> None:
    with served(tmp_path / "idpass.db", "--rate", "0.01", "--burst", "10") as server:
        plain, asking = (
            server.stub.GetAccount.with_call(service_pb.GetAccountRequest(), metadata=metadata)[1]
            for metadata in ((), ((rate_fields.ASKING_KEY, "1"),))
        )
        # Over gRPC only who asks is told.
        assert [key for key, _ in plain.trailing_metadata()] == ["idpass-reference"]
        assert '"rate";r=8;' in str(dict(asking.trailing_metadata())["ratelimit"])
        answers = [server.http.get("/idpass/account"), server.http.head("/idpass/account")]
        answers.append(server.http.get(f"/idpass/{UNKNOWN_ID}"))
        answers.append(server.post("cancel", id="x"))
        with server.http.stream("GET", "/idpass/events") as stream:
            answers.append(stream)
        codes = [answer.status_code for answer in answers]
        assert codes == [200, 200, 404, 400, 200]
        assert [left(answer)[0] for answer in answers] == [7, 6, 5, 4, 3]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"rate";q=10;w=1000'}
        assert all(0 < left(answer)[1] <= 100 for answer in answers)
        # A batch takes as much as its items, as a debt if need be.
        batch = server.post("batch-cancel", requests=[{"id": UNKNOWN_ID}] * 5)
        assert batch.status_code == 200
        assert left(batch)[0] == 0
        assert 200 < left(batch)[1] <= 300
        refused = server.http.get("/idpass/account")
        assert (refused.status_code, reason(refused)) == (429, "OVERLOADED")
        assert detail(refused, "ErrorInfo")["metadata"]["cause"] == "rate"
        assert left(refused)[0] == 0
        assert left(refused)[1] <= int(refused.headers["retry-after"])
        # What the gateway itself refuses has nothing to do with the rate.
        assert "ratelimit" not in server.http.get("/idpass/nothing").headers


def test_each_caller_hears_of_its_own_rate_and_a_stranger_of_none(tmp_path: Path) -> None:
    make_accounts(tmp_path / "idpass.db", "acme")
    callers = tmp_path / "callers.toml"
    slow = [caller("ann", "acme", "read"), "rate = 0.01\nburst = 2\n"]
    callers.write_text("".join([*slow, caller("bob", "acme", "read"), "rate = 0.01\nburst = 5\n"]))
    with served(tmp_path / "idpass.db", "--callers", str(callers)) as server:

        def get(token: str) -> httpx.Response:
            header = {"authorization": f"Bearer {token}"}
            return server.http.get("/idpass/account", headers=header)

        assert [left(get("ann-token"))[0] for _ in range(3)] == [1, 0, 0]
        assert left(get("bob-token"))[0] == 4
        stranger = get("nobody")
        assert stranger.status_code == 401
        assert "ratelimit" not in stranger.headers
        denied = server.http.post(
            "/idpass/register", json={}, headers={"authorization": "Bearer bob-token"}
        )
        assert (denied.status_code, left(denied)[0]) == (403, 3)
