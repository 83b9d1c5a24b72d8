"""Arguments of the wrong kind: refused before anything is sent, by the argument's name."""

from datetime import datetime
from typing import Any

import pytest

from idpass import AsyncIdPassClient, IdPassClient, Status
from kit.client import Connect, Serve

SECRET = "s3cret"
DAY = "id-of-a-pass"

Case = tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]
CALLS: list[Case] = [
    ("cancel", (7,), {}, TypeError, "id is 7; pass the UUID of a pass"),
    ("cancel", (None,), {}, TypeError, "id is None"),
    ("cancel", (b"id",), {}, TypeError, "id is b'id'"),
    ("cancel", (DAY,), {"note": SECRET.encode()}, TypeError, "note is bytes; pass text"),
    ("cancel", (DAY,), {"note": None}, TypeError, "note is NoneType; pass text"),
    ("cancel", (DAY,), {"note": "\udcff"}, ValueError, "note is not text that can be sent"),
    ("cancel", (DAY,), {"reason": "bored"}, ValueError, "reason is 'bored'; .*words: .*abandoned"),
    ("cancel", (DAY,), {"reason": 1}, TypeError, "reason is 1; pass a CancelReason"),
    ("cancel", (DAY,), {"reason": Status.NEW}, TypeError, "reason is <Status.NEW: 'new'>"),
    ("cancel", (DAY,), {"expected_status": "NEW"}, ValueError, "expected_status is 'NEW'"),
    ("cancel", (DAY,), {"require_refund": "yes"}, TypeError, "require_refund is 'yes'; pass True"),
    ("cancel", (DAY,), {"validate_only": None}, TypeError, "validate_only is None; pass True"),
    ("cancel", (DAY,), {"request_id": 7}, TypeError, "request_id is int; pass text"),
    ("cancel", (DAY,), {"timeout": "5"}, TypeError, "timeout is '5'; pass a number of seconds"),
    ("cancel", (DAY,), {"timeout": -1}, ValueError, "timeout is -1; pass seconds, from 0"),
    ("cancel", (DAY,), {"timeout": float("nan")}, ValueError, "timeout is nan"),
    ("cancel", (DAY,), {"timeout": float("inf")}, ValueError, "timeout is inf"),
    ("cancel", (DAY,), {"timeout": True}, TypeError, "timeout is True"),
    ("register", (), {"link_validity_days": "7"}, TypeError, "link_validity_days is '7'; .*whole"),
    ("register", (), {"link_validity_days": 7.0}, TypeError, "link_validity_days is 7.0"),
    ("register", (), {"link_validity_days": 1 << 31}, ValueError, "more than 32 bits hold"),
    ("register", (), {"applicant_reference": 7}, TypeError, "applicant_reference is int; pass"),
    ("register", (), {"supersedes": 7}, TypeError, "supersedes is 7; pass the UUID"),
    ("advance", (DAY, None), {}, TypeError, "to_status is None; pass a Status"),
    ("advance", (DAY, "open"), {}, ValueError, "to_status is 'open'; .*opened"),
    ("get", (["id"],), {}, TypeError, r"id is \['id'\]"),
    ("list", (), {"statuses": "new"}, TypeError, r"the text 'new'; pass a list, such as \['new'\]"),
    ("list", (), {"statuses": 7}, TypeError, "statuses is 7; pass a list"),
    ("list", (), {"idle_before": "today"}, TypeError, "idle_before is 'today'; pass a datetime"),
    ("list", (), {"idle_before": datetime(2026, 1, 1)}, ValueError, "no time zone"),  # noqa: DTZ001
    ("list", (), {"idle_for": 7}, TypeError, "idle_for is 7; pass a datetime.timedelta"),
    ("list", (), {"timeout": "5"}, TypeError, "timeout is '5'"),
    ("watch", (7,), {}, TypeError, "id is 7"),
    ("watch", (), {"after_sequence": "1"}, TypeError, "after_sequence is '1'; pass a whole number"),
    ("watch", (), {"after_sequence": 1 << 63}, ValueError, "more than 64 bits hold"),
    ("watch", (), {"history": 7}, TypeError, "history is int; pass text"),
    ("watch", (), {"reconnect_for": "1"}, TypeError, "reconnect_for is '1'; give a number"),
    ("cancel_many", ("id",), {}, TypeError, "ids is the text 'id'; pass a list"),
    ("cancel_many", (7,), {}, TypeError, "ids is 7; pass a list"),
    ("cancel_many", ([],), {"batch_size": 0}, ValueError, "batch_size is 0; 1 to 1000"),
    ("cancel_many", ([],), {"batch_size": "1"}, TypeError, "batch_size is '1'"),
    ("cancel_many", ([],), {"in_flight": 1.5}, TypeError, "in_flight is 1.5"),
    ("cancel_many", ([],), {"note": 7}, TypeError, "note is int"),
    ("cancel_many", ([],), {"timeout": "5"}, TypeError, "timeout is '5'"),
]


@pytest.mark.parametrize("case", CALLS)
def test_an_argument_of_the_wrong_kind_is_refused_before_anything_is_sent(
    connect: Connect, serve: Serve, case: Case
) -> None:
    method, arguments, more, error, said = case
    recorder, address = serve()
    with pytest.raises(error, match=said) as raised:
        getattr(connect(address), method)(*arguments, **more)
    assert SECRET not in str(raised.value)
    assert recorder.received == []


SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"address": 50051}, TypeError, "address is 50051; give HOST:PORT as text"),
    ({"address": None}, TypeError, "address is None"),
    ({"token": 7}, TypeError, "token is int; give text, or a function"),
    ({"token": SECRET.encode()}, TypeError, "token is bytes; give text, or a function"),
    ({"tls": 7}, TypeError, "tls is int; give the path or bytes of a PEM file"),
    ({"client_certificate": "cert.pem"}, TypeError, "client_certificate is a pair"),
    ({"client_certificate": (7, 7)}, TypeError, "client_certificate is int; give the path"),
    ({"timeout": "5"}, TypeError, "timeout is '5'"),
    ({"timeout": -1}, ValueError, "timeout is -1"),
    ({"channel_options": {"grpc.x": 1}}, TypeError, "channel_options is dict; give pairs: name"),
    ({"channel_options": ["grpc.x"]}, TypeError, "channel_options has 'grpc.x'; give pairs: name"),
    ({"channel_options": [(1, 2)]}, TypeError, r"channel_options has \(1, 2\); give pairs: name"),
]


@pytest.mark.parametrize(("settings", "error", "said"), SETTINGS)
@pytest.mark.parametrize("client", [IdPassClient, AsyncIdPassClient])
def test_so_is_a_setting_when_the_client_is_made(
    client: Any, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        client(**{"address": "localhost:1"} | settings)
    assert SECRET not in str(raised.value)


def test_webhooks_are_no_exception(serve: Serve) -> None:
    recorder, address = serve()
    hooks = IdPassClient(address).webhooks
    wrong: Any = 7
    for call in (
        lambda: hooks.create(wrong),
        lambda: hooks.create("https://x.example", after_sequence="1"),  # type: ignore[arg-type]
        lambda: hooks.get(wrong),
        lambda: hooks.update("id", url=wrong),
        lambda: hooks.update("id", state="gone"),  # type: ignore[arg-type]
        lambda: hooks.rotate_secret("id", immediate=wrong),
        lambda: hooks.redeliver("id", sequence="1"),  # type: ignore[arg-type]
        lambda: hooks.redeliver("id"),
    ):
        with pytest.raises((TypeError, ValueError), match=r"pass|give"):
            call()
    assert recorder.received == []
