"""Another account's passes do not exist: not in answers, nor in errors, nor by what is written."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.api.errors import rfc3339
from kit.guarded import Guarded, caller, rows
from kit.proving import times
from kit.support import RPC_OF, STATUS, Calls, refused
from kit.ways import WAYS

pytestmark = pytest.mark.both_stores

PROBES_IN_A_ROW = 60
ROWS = times(every_day=15, a_minute=9)
ABSENT_ID = "0198c0de-0000-7000-8000-00000000abcd"


@pytest.fixture
def ann(guarded: Guarded) -> Calls:
    return guarded.with_token("ann-token")


@pytest.fixture
def bob(guarded: Guarded) -> Calls:
    return guarded.with_token("bob-token")


WAYS_TO_MEET_A_PASS: dict[str, Callable[[Calls, str], Any]] = {
    "get": lambda calls, pass_id: calls.get(pass_id),
    "cancel": lambda calls, pass_id: calls.cancel(pass_id),
    "cancel with a request_id": lambda calls, pass_id: calls.cancel(pass_id, request_id="r"),
    "cancel to see": lambda calls, pass_id: calls.cancel(pass_id, validate_only=True),
    "cancel for a refund": lambda calls, pass_id: calls.cancel(pass_id, require_refund=True),
    "cancel in a status": lambda calls, pass_id: calls.cancel(
        pass_id, expected_status=STATUS["complete"]
    ),
    "advance": lambda calls, pass_id: calls.advance(pass_id, "opened"),
    "supersede": lambda calls, pass_id: calls.register(supersedes=pass_id),
    "watch": lambda calls, pass_id: next(calls.watch(id=pass_id)),
}


def without(trailing: dict[str, Any], pass_id: str, reference: str) -> dict[str, bytes]:
    """The whole error as it came over the wire, but for the id and the reference."""
    return {
        key: (value if isinstance(value, bytes) else value.encode())
        .replace(pass_id.encode(), b"ID")
        .replace(reference.encode(), b"REFERENCE")
        for key, value in trailing.items()
    }


@pytest.mark.parametrize("way", WAYS_TO_MEET_A_PASS)
@pytest.mark.parametrize("status", WAYS)
def test_a_foreign_pass_is_answered_byte_for_byte_as_one_that_never_was(
    guarded: Guarded, ann: Calls, bob: Calls, way: str, status: str
) -> None:
    foreign = ann.pass_in(status)
    before = rows(guarded.url, "acme"), rows(guarded.url, "beta")
    told = []
    for pass_id in (foreign, ABSENT_ID):
        error = refused(lambda: WAYS_TO_MEET_A_PASS[way](bob, pass_id))  # noqa: B023 called at once
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "PASS_NOT_FOUND")
        reference = error.details["RequestInfo"].request_id  # type: ignore[attr-defined]
        told.append(without(error.trailing, pass_id, reference))
    assert told[0] == told[1]
    assert (rows(guarded.url, "acme"), rows(guarded.url, "beta")) == before


def test_in_a_batch_too(ann: Calls, bob: Calls) -> None:
    foreign, own = ann.pass_in("new"), bob.pass_in("new")
    ids = (foreign, own, ABSENT_ID)
    answer = bob.batch(*(service_pb.CancelRequest(id=pass_id) for pass_id in ids))
    foreign_error, own_result, absent_error = answer.results
    assert own_result.response.fee_refunded
    assert foreign_error.error.SerializeToString().replace(foreign.encode(), b"") == (
        absent_error.error.SerializeToString().replace(ABSENT_ID.encode(), b"")
    )
    assert ann.get(foreign).status == STATUS["new"]


def test_request_ids_of_two_accounts_have_nothing_to_do_with_each_other(
    ann: Calls, bob: Calls
) -> None:
    theirs = ann.register(request_id="r", applicant_reference="Jane").id_pass
    mine = bob.register(request_id="r", applicant_reference="Jane")
    assert not mine.replayed
    assert mine.id_pass.id != theirs.id
    assert ann.cancel(theirs.id, request_id="c").fee_refunded
    assert not bob.cancel(mine.id_pass.id, request_id="c").replayed
    # Other content than in the other account is no reuse.
    ann.register(request_id="x", link_validity_days=3)
    assert not bob.register(request_id="x", link_validity_days=4).replayed


def test_a_page_token_is_good_in_its_own_account_only(ann: Calls, bob: Calls) -> None:
    for _ in range(3):
        ann.register()
        bob.register()
    token = ann.page(page_size=1).next_page_token
    error = refused(lambda: bob.page(page_size=1, page_token=token))
    assert error.reason == "INVALID_REQUEST"
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == "page_token"
    assert ann.page(page_size=1, page_token=token).id_passes


def test_the_sequence_of_an_account_says_nothing_of_another(ann: Calls, bob: Calls) -> None:
    bob.register()
    for _ in range(5):
        ann.register()
    bob.register()
    assert [event.sequence for event in bob.events()] == [1, 2]
    assert bob.account().last_sequence == 2
    error = refused(lambda: next(bob.watch(after_sequence=5)))
    assert "ahead of the newest event, 2" in error.message


def test_a_watcher_hears_of_its_own_account_only(ann: Calls, bob: Calls) -> None:
    stream = bob.watch()
    for _ in range(20):
        ann.register()
    mine = bob.register().id_pass.id
    event = next(stream)
    assert (event.id_pass_id, event.sequence) == (mine, 1)
    stream.cancel()


def test_a_full_account_leaves_the_slots_of_others_alone(guarded: Guarded) -> None:
    guarded.server._store.set_account("acme", slot_limit=1, fee=None)
    ann, bob = guarded.with_token("ann-token"), guarded.with_token("bob-token")
    ann.register()
    assert refused(ann.register).reason == "NO_FREE_SLOT"
    assert bob.register().id_pass.account == "beta"


# -- random probes


class Known(NamedTuple):
    """What there is to be known of an account, and to be tried by another."""

    ids: list[str]
    request_ids: list[str]
    page_tokens: list[str]
    sequences: list[int]


def furnish(calls: Calls, mark: str) -> Known:
    """Gives an account passes in every status, with everything that can be said of them."""
    for status, way in WAYS.items():
        for number in range(2):
            key = f"{mark}-{status}-{number}"
            pass_id = calls.register(
                request_id=f"{key}-register", applicant_reference=f"{mark} Applicant {key}"
            ).id_pass.id
            for step in way:
                if step == "cancelled":
                    calls.cancel(pass_id, request_id=f"{key}-cancel", note=f"{mark} Note {key}")
                else:
                    calls.advance(pass_id, step, request_id=f"{key}-{step}")
    prior = calls.register(request_id=f"{mark}-prior").id_pass.id
    calls.register(request_id=f"{mark}-superseding", supersedes=prior)
    tokens = [calls.page(page_size=size).next_page_token for size in (1, 5)]
    tokens.append(calls.page(page_size=1, statuses=[STATUS["new"]]).next_page_token)
    events = calls.events()
    return Known(
        sorted({event.id_pass_id for event in events}),
        [event.request_id for event in events],
        tokens,
        [event.sequence for event in events],
    )


class World:
    """Two furnished accounts. All that is acme's, and not beta's as well, is a secret."""

    def __init__(self, folder: Path, db: Path | str) -> None:
        self.server = Guarded(folder, caller("of-acme"), caller("of-beta", "beta"), db=db)
        self.owner = self.server.with_token("of-acme-token")
        self.prober = self.server.with_token("of-beta-token")
        self.acme = furnish(self.owner, "Acme")
        self.server.time.advance(us=1)  # so that times of the one are not those of the other
        self.beta = furnish(self.prober, "Beta")
        self.rows = rows(self.server.url, "acme")
        self.view = self.seen_by_owner()
        secrets = strings(self.rows) - strings(rows(self.server.url, "beta"))
        secrets |= {rfc3339(event.event_time.ToMicroseconds()) for event in self.owner.events()}
        secrets |= set(self.acme.page_tokens)
        self.secret = re.compile("|".join(map(re.escape, sorted(secrets))).encode())
        self.probes: Counter[str] = Counter()
        self._sent: set[bytes] = set()

    def seen_by_owner(self) -> tuple[bytes, ...]:
        messages = (*self.owner.list_all(), *self.owner.events(), self.owner.account())
        return tuple(message.SerializeToString() for message in messages)

    def probe(self, request: Message) -> None:
        """Makes a call for beta. Fails if the answer has anything of acme's."""
        sent = request.SerializeToString(deterministic=True)
        sent += sent.lower()  # ids are answered in lower case
        for answer in self._answers(request):
            leaked = set(self.secret.findall(answer)) - set(self.secret.findall(sent))
            assert not leaked - self._sent, request
        # A request_id of its own is found in beta's events from now on, whoever else has it too.
        items = getattr(request, "requests", [request])
        self._sent |= {getattr(item, "request_id", "").encode() for item in items}

    def _answers(self, request: Message) -> list[bytes]:
        stub, token = self.prober.stub, self.prober._metadata
        method = RPC_OF[type(request)]
        self.probes[method] += 1
        try:
            if isinstance(request, service_pb.WatchRequest):
                return self._watched(request)
            answer = getattr(stub, method)(request, metadata=token, timeout=10)
        except grpc.RpcError as error:
            assert error.code() not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, error
            trailing: Any = error.trailing_metadata()
            return [value if isinstance(value, bytes) else value.encode() for _, value in trailing]
        return [answer.SerializeToString()]

    def _watched(self, request: service_pb.WatchRequest) -> list[bytes]:
        """As many events as there are sure to be: a stream has no end."""
        last = self.prober.account().last_sequence
        stream = self.prober.stub.WatchIdPasses(request, metadata=self.prober._metadata, timeout=10)
        if not request.id and request.after_sequence == last:
            stream.initial_metadata()
            stream.cancel()
            return []
        events = [next(stream)]
        while not request.id and len(events) < min(70, last - request.after_sequence):
            events.append(next(stream))
        stream.cancel()
        return [event.SerializeToString() for event in events]


def strings(found: dict[str, list[tuple[object, ...]]]) -> set[str]:
    return {
        value
        for table in found.values()
        for row in table
        for value in row
        if isinstance(value, str) and value
    }


def requests(acme: Known, beta: Known) -> st.SearchStrategy[Message]:
    """Requests of every method, of what both accounts have and of what nobody has."""
    ids = st.one_of(
        st.sampled_from(acme.ids),
        st.sampled_from(acme.ids).map(str.upper),
        st.sampled_from(beta.ids),
        st.uuids().map(str),
        st.text(max_size=40),
    )
    request_ids = st.one_of(
        st.just(""),
        st.sampled_from(acme.request_ids),
        st.sampled_from(beta.request_ids),
        st.text(max_size=20),
    )
    tokens = st.one_of(
        st.just(""),
        st.sampled_from(acme.page_tokens),
        st.sampled_from(beta.page_tokens),
        st.tuples(st.sampled_from(acme.page_tokens), st.integers(0, 60)).map(
            lambda pair: pair[0][: pair[1]] + pair[0][pair[1] + 1 :]
        ),
        st.text(max_size=60),
    )
    statuses = st.sampled_from([0, *STATUS.values(), 99])
    sequences = st.sampled_from([*acme.sequences, *beta.sequences]) | st.integers(-5, 10_000)
    cancels = st.builds(
        service_pb.CancelRequest,
        id=ids,
        request_id=request_ids,
        reason=st.sampled_from([0, *pb.CancelReason.values()]),
        note=st.text(max_size=10),
        expected_status=statuses,
        require_refund=st.booleans(),
        validate_only=st.booleans(),
    )
    idle = st.none() | st.integers(0, 4_000_000_000).map(lambda s: Timestamp(seconds=s))
    return st.one_of(
        cancels,
        st.builds(service_pb.BatchCancelRequest, requests=st.lists(cancels, max_size=4)),
        st.builds(
            service_pb.RegisterRequest,
            request_id=request_ids,
            link_validity_days=st.integers(-1, 15),
            applicant_reference=st.text(max_size=10),
            supersedes=st.just("") | ids,
        ),
        st.builds(
            service_pb.AdvanceRequest,
            id=ids,
            to_status=statuses,
            request_id=request_ids,
            expected_status=statuses,
        ),
        st.builds(service_pb.GetRequest, id=ids),
        st.builds(
            service_pb.ListRequest,
            page_size=st.integers(-1, 40),
            page_token=tokens,
            statuses=st.lists(statuses, max_size=2),
            idle_before=idle,
            applicant_reference=st.just("") | st.text(max_size=10),
        ),
        st.just(service_pb.GetAccountRequest()),
        st.builds(service_pb.WatchRequest, after_sequence=sequences),
        st.builds(service_pb.WatchRequest, id=ids),
    )


@pytest.fixture
def world(tmp_path: Path, db: Path | str) -> Iterator[World]:
    furnished = World(tmp_path, db)
    yield furnished
    furnished.server.stop()


@pytest.mark.scaled
def test_random_probes_learn_nothing_and_change_nothing(world: World) -> None:
    probes = st.lists(
        requests(world.acme, world.beta), min_size=PROBES_IN_A_ROW, max_size=PROBES_IN_A_ROW
    )

    # What failed is said by itself; fewer probes before it, by trying again and again, are not
    # worth the minutes.
    @settings(max_examples=ROWS, phases=[Phase.generate])
    @given(probes)
    def learn_nothing(requests: list[Message]) -> None:
        for request in requests:
            world.probe(request)
        assert rows(world.server.url, "acme") == world.rows

    learn_nothing()
    assert world.seen_by_owner() == world.view
    assert world.probes.total() >= 0.9 * ROWS * PROBES_IN_A_ROW
    assert set(world.probes) == {method.name for method in SERVICE.methods}


SERVICE = service_pb.DESCRIPTOR.services_by_name["IdPassService"]
