"""What is tried again, when, and what is raised in the end: a scripted service in fake time."""

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import grpc
import grpc_testing
import pytest

import idpass
from idpass import IdPassClient, RetryPolicy, _calls, _reconnect, _retry, _transport
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from kit.refusing import trailing

CODE = grpc.StatusCode
METHODS = service_pb.DESCRIPTOR.services_by_name["IdPassService"].methods_by_name
ANSWERS = {
    "CancelIdPass": service_pb.CancelResponse(status=pb.ID_PASS_STATUS_CANCELLED),
    "GetIdPass": service_pb.GetResponse(),
    "ListIdPasses": service_pb.ListResponse(),
}
Step = tuple[grpc.StatusCode, str | None, dict[str, str]]
LOST: Step = (CODE.UNAVAILABLE, None, {})


def in_background(call: Callable[[], Any]) -> "concurrent.futures.Future[Any]":
    """Its result, on a thread that ends with the process, however wrong the script is."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Script:
    """A service that answers as it is told, and a clock that moves by pauses only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.pauses_s: list[float] = []
        self.requests: list[Any] = []
        self.timeouts_s: list[float] = []
        self.waited: list[bool] = []
        self.channel = grpc_testing.channel(
            [service_pb.DESCRIPTOR.services_by_name["IdPassService"]],
            grpc_testing.strict_fake_time(self.now_s),
        )
        monkeypatch.setattr(_transport, "time", self)
        monkeypatch.setattr("random.uniform", lambda _, most: most)
        monkeypatch.setattr(_transport, "connect", self.connect)
        self._connected = False
        self.put_in(IdPassClient("localhost:1"))

    def put_in(self, client: IdPassClient) -> None:
        """Has a client speak to this service."""
        self.client = client
        client._transport.channel._stub = IdPassServiceStub(self._recording(self.channel))

    def connect(self, *_: Any) -> bool:
        self._connected = True
        return True

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(round(seconds, 6))
        self.now_s += seconds

    def _recording(self, channel: Any) -> Any:
        script = self

        class Recording:
            unary_stream = channel.unary_stream

            def unary_unary(self, *args: Any, **_: Any) -> Callable[..., Any]:
                multi_callable = channel.unary_unary(args[0])

                def call(request: Any, timeout: float, metadata: Any) -> Any:
                    script.timeouts_s.append(round(timeout, 6))
                    script.waited.append(script._connected)
                    script._connected = False
                    return multi_callable(request, timeout=timeout, metadata=metadata)

                return call

        return Recording()

    def run(
        self, call: Callable[[], Any], method: str, *steps: Step | None, took_s: float = 0
    ) -> Any:
        """Answers each attempt in turn: with an error, or None for the answer itself."""
        answer = in_background(call)
        for step in steps:
            taken = in_background(lambda: self.channel.take_unary_unary(METHODS[method]))
            _, request, rpc = taken.result(timeout=5)
            self.requests.append(request)
            self.now_s += took_s
            rpc.send_initial_metadata(())
            if step is None:
                rpc.terminate(ANSWERS[method], (), CODE.OK, "")
            else:
                code, reason, metadata = step
                rpc.terminate(None, trailing(code, reason, metadata), code, "no")
        return answer.result(timeout=5)

    def cancel(self, *steps: Step | None, took_s: float = 0, **arguments: Any) -> Any:
        def call() -> Any:
            return self.client.cancel("id", **arguments)

        return self.run(call, "CancelIdPass", *steps, took_s=took_s)

    def get(self, *steps: Step | None) -> Any:
        return self.run(lambda: self.client.get("id"), "GetIdPass", *steps)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


def store_unavailable(outcome: str = "not_committed", **more: str) -> Step:
    return (CODE.UNAVAILABLE, "STORE_UNAVAILABLE", {"outcome": outcome, **more})


def overloaded(delay_ms: int) -> Step:
    """As the service says it."""
    said = {"pushback": str(delay_ms), "delay": str(delay_ms)}
    return (CODE.RESOURCE_EXHAUSTED, "OVERLOADED", said)


def test_an_unavailable_service_is_tried_again_with_growing_pauses_and_the_same_request(
    script: Script,
) -> None:
    receipt = script.cancel(LOST, LOST, LOST, LOST, None)
    assert receipt.status is idpass.Status.CANCELLED
    assert script.pauses_s == [0.1, 0.2, 0.4, 0.8]
    assert script.waited == [False, True, True, True, True]
    assert len({request.SerializeToString(deterministic=True) for request in script.requests}) == 1
    assert script.requests[0].request_id == receipt.request_id


def test_all_attempts_and_pauses_share_one_deadline(script: Script) -> None:
    with pytest.raises(idpass.OutcomeUnknown):
        script.cancel(*[LOST] * 4, took_s=1.0)
    assert script.timeouts_s == [5.0, 3.9, 2.7, 1.3]
    assert script.now_s - 1_000 <= 5.0


def test_a_call_may_have_a_deadline_of_its_own(script: Script) -> None:
    with pytest.raises(idpass.OutcomeUnknown):
        script.cancel(LOST, LOST, timeout=0.25)
    assert script.timeouts_s == [0.25, 0.15]
    script.timeouts_s.clear()
    script.cancel(None, timeout=60)
    assert script.timeouts_s == [60]


def test_the_policy_says_how_long_to_pause_and_how_often_to_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script(monkeypatch)
    policy = RetryPolicy(max_attempts=5, initial_backoff=0.2, multiplier=3, max_backoff=1.0)
    script.put_in(IdPassClient("localhost:1", retry=policy))
    with pytest.raises(idpass.OutcomeUnknown):
        script.cancel(*[LOST] * 5, timeout=60)
    assert script.pauses_s == [0.2, 0.6, 1.0, 1.0]


def test_a_policy_of_one_attempt_retries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch)
    script.put_in(IdPassClient("localhost:1", retry=RetryPolicy(max_attempts=1)))
    with pytest.raises(idpass.Unavailable):
        script.get(LOST)
    with pytest.raises(idpass.Overloaded):
        script.cancel(overloaded(200))
    with pytest.raises(idpass.Overloaded):
        script.run(lambda: list(script.client.list()), "ListIdPasses", overloaded(200))
    assert script.pauses_s == []


def test_a_listing_counts_its_attempts_anew_after_each_delay_that_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script(monkeypatch)
    script.put_in(IdPassClient("localhost:1", retry=RetryPolicy(max_attempts=2)))
    steps = [overloaded(200)] * 5
    script.run(lambda: list(script.client.list()), "ListIdPasses", *steps, LOST, None)
    with pytest.raises(idpass.Unavailable):
        script.run(lambda: list(script.client.list()), "ListIdPasses", LOST, LOST)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"max_attempts": 0}, ValueError, "max_attempts is 0; the first attempt counts"),
        ({"max_attempts": 2.5}, TypeError, "max_attempts is 2.5; give a whole number"),
        ({"max_attempts": True}, TypeError, "max_attempts is True"),
        ({"initial_backoff": "1"}, TypeError, "initial_backoff is '1'; give a number of seconds"),
        ({"initial_backoff": -1}, ValueError, "initial_backoff is -1; 0 seconds is the least"),
        ({"initial_backoff": float("nan")}, ValueError, "initial_backoff is nan"),
        ({"initial_backoff": 3.0}, ValueError, "max_backoff is 2.0; 3 seconds is the least"),
        ({"multiplier": 0.5}, ValueError, "multiplier is 0.5; 1 is the least"),
        ({"reconnect_for": None}, TypeError, "reconnect_for is None"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(
    values: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        RetryPolicy(**values)


def test_a_policy_cannot_be_changed() -> None:
    policy = RetryPolicy()
    with pytest.raises(AttributeError):
        policy.max_attempts = 3  # type: ignore[misc]
    wrong: Any = 3
    with pytest.raises(TypeError, match=r"retry is 3; give a RetryPolicy"):
        IdPassClient("localhost:1", retry=wrong)


def test_pauses_have_an_upper_limit(script: Script) -> None:
    script.cancel(*[LOST] * 8, None, timeout=60)
    assert script.pauses_s == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_pauses_are_spread_at_random() -> None:
    first = {_retry.Backoff(RetryPolicy()).next_s() for _ in range(100)}
    assert len(first) > 90
    assert all(0.05 <= pause_s <= 0.1 for pause_s in first)


def test_a_watcher_that_was_back_begins_with_short_pauses_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    reconnects = _reconnect.Reconnects("WatchIdPasses", RetryPolicy(), 0.0, str)

    class Lost(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return CODE.UNAVAILABLE

        def details(self) -> str:
            return "Socket closed"

    assert [reconnects.failed(Lost(), 0.0) for _ in range(3)] == [0.1, 0.2, 0.4]
    reconnects.connected()
    assert [reconnects.failed(Lost(), 0.0) for _ in range(2)] == [0.1, 0.2]


def test_a_call_that_a_server_dropped_when_it_hung_up_is_tried_again(script: Script) -> None:
    receipt = script.cancel((CODE.CANCELLED, None, {}), None)
    assert receipt.status is idpass.Status.CANCELLED
    assert len({request.request_id for request in script.requests}) == 1


TRIED_AGAIN = {CODE.OK, CODE.UNAVAILABLE, CODE.CANCELLED}


@pytest.mark.parametrize("code", [code for code in CODE if code not in TRIED_AGAIN])
def test_nothing_else_is_tried_again(script: Script, code: CODE) -> None:
    with pytest.raises(idpass.IdPassError) as raised:
        script.get((code, None, {}))
    assert raised.value.code is code
    assert script.pauses_s == []


def test_the_servers_own_pause_is_kept(script: Script) -> None:
    script.cancel(store_unavailable(pushback="1500"), LOST, None)
    assert script.pauses_s == [1.5, 0.1]  # and after it they begin anew (gRFC A6)


@pytest.mark.parametrize("pushback", ["-1", "never", "5001"])
def test_a_server_that_wants_no_retry_in_time_gets_none(script: Script, pushback: str) -> None:
    with pytest.raises(idpass.Unavailable) as raised:
        script.cancel(store_unavailable(pushback=pushback))
    assert raised.value.request_id
    assert script.pauses_s == []


@pytest.mark.parametrize("code", [CODE.UNAVAILABLE, CODE.DEADLINE_EXCEEDED])
def test_a_change_without_an_answer_is_of_unknown_outcome(script: Script, code: CODE) -> None:
    with pytest.raises(idpass.OutcomeUnknown) as raised:
        script.cancel((code, None, {}), timeout=0.05)
    error = raised.value
    assert error.code is code
    assert error.request_id == script.requests[0].request_id != ""
    assert f"request_id={error.request_id!r}" in str(error)
    assert isinstance(error.__cause__, grpc.RpcError)
    receipt = script.cancel(None, request_id=error.request_id)
    assert receipt.request_id == error.request_id


def test_a_change_that_surely_was_not_made_is_just_unavailable(script: Script) -> None:
    with pytest.raises(idpass.Unavailable):
        script.cancel(store_unavailable(), store_unavailable(), timeout=0.15)


def test_a_commit_of_unknown_outcome_stays_unknown(script: Script) -> None:
    steps = (store_unavailable("unknown"), store_unavailable("not_committed"))
    with pytest.raises(idpass.OutcomeUnknown):
        script.cancel(*steps, timeout=0.15)


@pytest.mark.parametrize(
    "last",
    [
        (CODE.RESOURCE_EXHAUSTED, "OVERLOADED", {}),
        (CODE.UNAUTHENTICATED, "UNAUTHENTICATED_CALLER", {}),
        (CODE.PERMISSION_DENIED, "METHOD_NOT_PERMITTED", {}),
        (CODE.INTERNAL, "INTERNAL", {}),
        (CODE.DEADLINE_EXCEEDED, None, {}),
    ],
)
def test_a_refusal_after_a_lost_attempt_does_not_hide_that_it_may_have_been_made(
    script: Script, last: Step
) -> None:
    with pytest.raises(idpass.OutcomeUnknown) as raised:
        script.cancel(LOST, last)
    assert raised.value.code is last[0]
    assert raised.value.reason == last[1]


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ((CODE.FAILED_PRECONDITION, "PASS_COMPLETE", {}), idpass.Complete),
        ((CODE.NOT_FOUND, "PASS_NOT_FOUND", {}), idpass.NotFound),
        ((CODE.ABORTED, "PASS_CHANGED", {}), idpass.PassChanged),
        ((CODE.RESOURCE_EXHAUSTED, "NO_FREE_SLOT", {}), idpass.NoFreeSlot),
        ((CODE.RESOURCE_EXHAUSTED, "DAILY_QUOTA_EXHAUSTED", {}), idpass.DailyQuotaExhausted),
    ],
)
def test_a_refusal_that_comes_after_the_receipts_were_looked_at_settles_the_matter(
    script: Script, last: Step, kind: type[idpass.IdPassError]
) -> None:
    with pytest.raises(kind):
        script.cancel(LOST, last)


def test_a_call_that_changes_nothing_has_no_unknown_outcome(script: Script) -> None:
    with pytest.raises(idpass.DeadlineExceeded) as raised:
        script.get((CODE.DEADLINE_EXCEEDED, None, {}))
    assert raised.value.request_id is None
    with pytest.raises(idpass.Unavailable):  # that is what it waited for in vain
        script.get(LOST, (CODE.DEADLINE_EXCEEDED, None, {}))
    with pytest.raises(idpass.Unavailable):
        script.cancel((CODE.UNAVAILABLE, None, {"pushback": "-1"}), validate_only=True)


def test_an_overloaded_service_is_tried_again_when_it_asks_for_it_and_a_little_later(
    script: Script,
) -> None:
    receipt = script.cancel(overloaded(1_500), overloaded(200), None)
    assert script.pauses_s == [1.6, 0.4]  # all who were refused were told of the same moment
    assert len({request.SerializeToString(deterministic=True) for request in script.requests}) == 1
    assert script.requests[0].request_id == receipt.request_id
    assert script.timeouts_s == [5.0, 3.4, 3.0]


def test_the_delay_may_be_told_in_the_details_alone(script: Script) -> None:
    script.get((CODE.RESOURCE_EXHAUSTED, "OVERLOADED", {"delay": "700"}), None)
    assert script.pauses_s == [0.8]


@pytest.mark.parametrize(
    ("said", "retry_after"),
    [
        ({"pushback": "5000", "delay": "5000"}, 5.0),
        ({"delay": "86400000"}, 86_400.0),
        ({"pushback": "-1", "delay": "200"}, 0.2),
        ({}, None),
    ],
)
def test_an_overloaded_service_that_asks_for_more_than_there_is_time_gets_no_retry(
    script: Script, said: dict[str, str], retry_after: float | None
) -> None:
    with pytest.raises(idpass.Overloaded) as raised:
        script.cancel((CODE.RESOURCE_EXHAUSTED, "OVERLOADED", said))
    assert raised.value.retry_after == retry_after
    assert raised.value.request_id == script.requests[0].request_id
    assert script.pauses_s == []


@pytest.mark.parametrize("reason", ["NO_FREE_SLOT", "SOME_NEW_LIMIT", None])
def test_other_limits_are_not_waited_for(script: Script, reason: str | None) -> None:
    with pytest.raises(idpass.ResourceExhausted):
        script.cancel((CODE.RESOURCE_EXHAUSTED, reason, {"pushback": "1"}))
    assert script.pauses_s == []


def test_what_may_have_been_made_stays_so_while_the_service_is_overloaded(script: Script) -> None:
    with pytest.raises(idpass.OutcomeUnknown) as raised:
        script.cancel(store_unavailable("unknown"), overloaded(200), overloaded(60_000))
    assert (raised.value.reason, raised.value.retry_after) == ("OVERLOADED", 60.0)
    with pytest.raises(idpass.NotFound):
        script.cancel(LOST, overloaded(200), (CODE.NOT_FOUND, "PASS_NOT_FOUND", {}))


def test_time_that_runs_out_on_an_overloaded_service_is_said_to(script: Script) -> None:
    with pytest.raises(idpass.Overloaded):
        script.get(overloaded(200), (CODE.DEADLINE_EXCEEDED, None, {}))


def test_a_caller_over_its_rate_keeps_the_retries_of_what_gets_lost(script: Script) -> None:
    for _ in range(600):
        with pytest.raises(idpass.Overloaded):
            script.get(overloaded(60_000))
    script.get(LOST, None)
    for _ in range(600):
        script.client._transport._throttle.failed()
    script.get(overloaded(200), None)


def test_a_call_that_is_turned_away_keeps_the_retries_of_what_gets_lost(script: Script) -> None:
    for _ in range(600):
        script.client._transport._throttle.failed()
    tokens = script.client._transport._throttle._tokens
    script.get((CODE.CANCELLED, None, {}), (CODE.CANCELLED, None, {}), None)
    assert script.client._transport._throttle._tokens >= tokens


def test_a_listing_goes_at_the_services_pace(script: Script) -> None:
    asked_for = [60_000, 200, 3_600_000]
    listed = script.run(
        lambda: list(script.client.list()), "ListIdPasses", *map(overloaded, asked_for), None
    )
    assert listed == []
    assert script.pauses_s == [60.1, 0.4, 3_600.4]
    assert script.timeouts_s == [5.0] * 4
    with pytest.raises(idpass.Unavailable):
        script.run(
            lambda: list(script.client.list(timeout=0.15)),
            "ListIdPasses",
            *(overloaded(60_000), LOST),
        )


class Refused(grpc.RpcError):
    """What a stream ends with."""

    def __init__(self, step: Step) -> None:
        self._code, self._trailing = step[0], trailing(*step)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "no"

    def initial_metadata(self) -> Any:
        return ()

    def trailing_metadata(self) -> Any:
        return self._trailing


class StreamRefused(Refused):
    """As gRPC says it of a server that has as many streams as it takes."""

    def details(self) -> str:
        return "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))"


def test_a_stream_that_the_server_refused_unseen_has_changed_nothing() -> None:
    throttle = _retry.Throttle()
    call = _calls.register(0, "", None, "once")
    attempts = _retry.Attempts(call, 5.0, 0.0, policy=RetryPolicy(), throttle=throttle, explain=str)
    assert 0 < attempts.failed(StreamRefused(LOST), 1.0) <= 0.1
    with pytest.raises(idpass.Unavailable, match="Nothing was changed") as raised:
        attempts.failed(StreamRefused(LOST), 4.999)
    assert raised.value.request_id == "once"
    assert throttle._tokens == throttle.MAX_TOKENS


def test_a_stream_that_was_open_comes_back_at_the_services_pace_but_not_for_ever() -> None:
    reconnects = _reconnect.Reconnects("WatchIdPasses", RetryPolicy(), 0.0, str)
    reconnects.connected()
    assert reconnects.failed(Refused(LOST), 1_000.0) <= 0.1
    assert 30.0 <= reconnects.failed(Refused(overloaded(30_000)), 1_001.0) <= 30.2
    reconnects.connected()  # the service begins to answer before it counts streams
    assert 20.0 <= reconnects.failed(Refused(overloaded(20_000)), 1_032.0) <= 20.2
    with pytest.raises(idpass.Overloaded):
        reconnects.failed(Refused(overloaded(20_000)), 1_053.0)


def test_a_stream_that_is_refused_from_the_beginning_is_not_waited_for() -> None:
    reconnects = _reconnect.Reconnects("WatchIdPasses", RetryPolicy(), 0.0, str)
    reconnects.connected()
    with pytest.raises(idpass.Overloaded):
        reconnects.failed(Refused(overloaded(200)), 1.0)


def test_retries_stop_while_most_attempts_fail_and_come_back_with_successes() -> None:
    throttle = _retry.Throttle()
    granted = [throttle.failed() for _ in range(1_000)]
    assert granted.count(True) == 499  # one broken connection may fail hundreds of calls at once
    assert not any(granted[499:])
    for _ in range(5_020):
        throttle.succeeded()
    assert throttle.failed()


def test_a_throttled_client_makes_one_attempt(script: Script) -> None:
    for _ in range(600):
        script.client._transport._throttle.failed()
    with pytest.raises(idpass.OutcomeUnknown):
        script.cancel(LOST)
    assert script.pauses_s == []


def test_the_token_is_sent_with_every_attempt_and_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = iter(["first\n", "second"])
    script = Script(monkeypatch)
    script.put_in(IdPassClient("localhost:1", token=lambda: next(tokens)))
    answer = in_background(lambda: script.client.cancel("id"))
    for step, token in ((LOST, "first"), (None, "second")):
        taken = in_background(lambda: script.channel.take_unary_unary(METHODS["CancelIdPass"]))
        metadata, _, rpc = taken.result(timeout=5)
        assert dict(metadata)["authorization"] == f"Bearer {token}"
        rpc.send_initial_metadata(())
        code = step[0] if step else CODE.OK
        rpc.terminate(None if step else ANSWERS["CancelIdPass"], (), code, "")
    assert answer.result(timeout=5).status is idpass.Status.CANCELLED
