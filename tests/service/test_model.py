"""One account against a model in plain Python: all rpcs, retries, and time moved at will.

The model knows the lifecycle only as the contract tells it, and shares no code with the server.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1.id_pass_service_pb2 import CancelRequest
from idpass_server.store.opening import make_store
from kit.proving import times
from kit.support import DAY_US, STATUS, Service, details_of, problems, set_account, set_slots, told

NAME = {number: name for name, number in STATUS.items()}
SLOTS = 5
Databases = Callable[[], contextlib.AbstractContextManager[str]]
FEE = 4.5
NEXT = {
    "new": {"opened", "expired", "cancelled"},
    "opened": {"in_progress", "expired", "cancelled"},
    "in_progress": {"complete", "failed", "expired", "cancelled"},
}
ENDED_REASON = {
    "complete": "PASS_COMPLETE",
    "expired": "PASS_EXPIRED",
    "failed": "PASS_FAILED",
    "cancelled": "PASS_ALREADY_CANCELLED",
}
REQUEST_IDS = st.none() | st.sampled_from(["r1", "r2", "r3", "r4"])
STATUSES = st.none() | st.sampled_from(sorted(STATUS))


@dataclass
class Model:
    status: str
    expire_us: int
    end_us: int | None = None
    refunded: bool = False
    supersedes: str = ""
    superseded_by: str = ""


@dataclass
class Receipt:
    content: tuple[Any, ...]
    answer: Any


@dataclass
class Ledger:
    passes: dict[str, Model] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    charged: float = 0
    refunded: float = 0
    registered: dict[int, int] = field(default_factory=dict)  # on each day
    quota: int = 0

    def quota_is_used_up(self, day: int) -> bool:
        return 0 < self.quota <= self.registered.get(day, 0)

    def in_flight(self) -> int:
        return sum(p.status in NEXT for p in self.passes.values())


class OneAccount(RuleBasedStateMachine):
    databases: Databases

    @initialize()
    def start(self) -> None:
        self.close = contextlib.ExitStack()
        db = self.close.enter_context(self.databases())
        set_slots(db, SLOTS)
        self.service = Service(db)
        self.ledger = Ledger()

    def teardown(self) -> None:
        if hasattr(self, "service"):
            self.service.stop()
            assert problems(self.service.url) == []
            self.close.close()

    def _pass_id(self, index: int) -> str:
        ids = list(self.ledger.passes)
        return ids[index % len(ids)]

    def _let_expire(self) -> None:
        for model in self.ledger.passes.values():
            if model.status in NEXT and model.expire_us <= self.service.time.now_us:
                model.status, model.end_us = "expired", model.expire_us

    def _call(self, method: Any, *args: Any, **fields: Any) -> tuple[Any, str | None]:
        try:
            return method(*args, **{k: v for k, v in fields.items() if v is not None}), None
        except grpc.RpcError as error:
            return None, told(error).reason

    def _keep(self, request_id: str | None, content: tuple[Any, ...], answer: Any) -> None:
        if request_id:
            self.ledger.receipts[request_id] = Receipt(content, answer)

    def _told_by_receipt(
        self, request_id: str | None, content: tuple[Any, ...], answer: Any, reason: str | None
    ) -> bool:
        """Whether the request_id was used before, and so settles what the answer must be."""
        receipt = self.ledger.receipts.get(request_id or "")
        if receipt is None:
            return False
        if receipt.content != content:
            assert reason == "REQUEST_ID_REUSED"
        else:
            assert answer.replayed
            answer.replayed = False
            assert answer == receipt.answer
        return True

    @rule(request_id=REQUEST_IDS, days=st.integers(1, 14), supersede=st.none() | st.integers(0, 99))
    def register(self, request_id: str | None, days: int, supersede: int | None) -> None:
        prior_id = None
        if supersede is not None and self.ledger.passes:
            prior_id = self._pass_id(supersede)
        content = ("register", days, prior_id)
        answer, reason = self._call(
            self.service.register,
            request_id=request_id,
            link_validity_days=days,
            supersedes=prior_id,
        )
        if self._told_by_receipt(request_id, content, answer, reason):
            return
        self._let_expire()
        prior = self.ledger.passes[prior_id] if prior_id else None
        if prior and prior.status not in NEXT:
            assert reason == ENDED_REASON[prior.status]
        elif self.ledger.quota_is_used_up(self._day()):
            assert reason == "DAILY_QUOTA_EXHAUSTED"
        elif not prior and self.ledger.in_flight() >= SLOTS:
            assert reason == "NO_FREE_SLOT"
        else:
            assert reason is None
            new_id = answer.id_pass.id
            if prior:
                self._cancel_in_model(prior, answer.superseded)
                prior.superseded_by = new_id
            assert answer.HasField("superseded") is (prior is not None)
            self.ledger.passes[new_id] = Model(
                "new", self.service.time.now_us + days * DAY_US, supersedes=prior_id or ""
            )
            self.ledger.charged += FEE
            self.ledger.registered[self._day()] = self.ledger.registered.get(self._day(), 0) + 1
            self._keep(request_id, content, answer)

    def _day(self) -> int:
        return self.service.time.now_us // DAY_US

    @rule(quota=st.integers(0, 4))
    def operator_sets_the_quota(self, quota: int) -> None:
        set_account(self.service.url, registrations_per_day=quota)
        self.ledger.quota = quota

    def _cancel_in_model(self, model: Model, answer: Any) -> None:
        refund = model.status in {"new", "opened"}
        assert answer.fee_refunded is refund
        assert answer.HasField("refund") is refund
        assert answer.previous_status == STATUS[model.status]
        self.ledger.refunded += FEE if refund else 0
        model.status, model.refunded = "cancelled", refund
        model.end_us = self.service.time.now_us

    def _why_not_cancel(
        self, model: Model, expected: str | None, require_refund: bool
    ) -> str | None:
        if model.status not in NEXT:
            return ENDED_REASON[model.status]
        if expected and expected != model.status:
            return "PASS_CHANGED"
        if require_refund and model.status == "in_progress":
            return "REFUND_NOT_AVAILABLE"
        return None

    @precondition(lambda self: self.ledger.passes)
    @rule(
        index=st.integers(0, 99),
        request_id=REQUEST_IDS,
        expected=STATUSES,
        require_refund=st.booleans(),
        validate_only=st.booleans(),
        in_batch=st.booleans(),
    )
    def cancel(  # noqa: PLR0917
        self,
        index: int,
        request_id: str | None,
        expected: str | None,
        require_refund: bool,
        validate_only: bool,
        in_batch: bool,
    ) -> None:
        pass_id = self._pass_id(index)
        content = ("cancel", pass_id, expected, require_refund)
        request = CancelRequest(
            id=pass_id,
            request_id=request_id or "",
            expected_status=STATUS[expected] if expected else pb.ID_PASS_STATUS_UNSPECIFIED,
            require_refund=require_refund,
            validate_only=validate_only,
        )
        if in_batch:
            result = self.service.batch(request).results[0]
            refused = result.HasField("error")
            answer: Any = None if refused else result.response
            reason = details_of(result.error)["ErrorInfo"].reason if refused else None
        else:
            answer, reason = self._call(self.service.stub.CancelIdPass, request)
        if self._told_by_receipt(request_id, content, answer, reason):
            return
        self._let_expire()
        model = self.ledger.passes[pass_id]
        assert reason == self._why_not_cancel(model, expected, require_refund)
        if reason is None and validate_only:
            assert answer.fee_refunded is (model.status != "in_progress")
        elif reason is None:
            self._cancel_in_model(model, answer)
            self._keep(request_id, content, answer)

    @precondition(lambda self: self.ledger.passes)
    @rule(
        index=st.integers(0, 99),
        to=st.sampled_from(["opened", "in_progress", "complete", "failed", "expired", "new"]),
        request_id=REQUEST_IDS,
        expected=STATUSES,
    )
    def advance(self, index: int, to: str, request_id: str | None, expected: str | None) -> None:
        pass_id = self._pass_id(index)
        content = ("advance", pass_id, to, expected)
        expected_status = STATUS[expected] if expected else None
        answer, reason = self._call(
            self.service.advance,
            pass_id,
            to,
            request_id=request_id,
            expected_status=expected_status,
        )
        if self._told_by_receipt(request_id, content, answer, reason):
            return
        self._let_expire()
        model = self.ledger.passes[pass_id]
        if model.status not in NEXT:
            assert reason == ENDED_REASON[model.status]
        elif expected and expected != model.status:
            assert reason == "PASS_CHANGED"
        elif to not in NEXT[model.status]:
            assert reason == "TRANSITION_NOT_ALLOWED"
        else:
            assert reason is None
            model.status = to
            if to not in NEXT:
                model.end_us = self.service.time.now_us
            assert answer.id_pass.status == STATUS[to]
            self._keep(request_id, content, answer)

    @rule(days=st.sampled_from([0.001, 0.5, 1.0, 3.0, 15.0]))
    def time_passes(self, days: float) -> None:
        self.service.time.advance(days=days)

    @precondition(lambda self: self.ledger.passes)
    @rule(index=st.integers(0, 99))
    def get(self, index: int) -> None:
        self._let_expire()
        pass_id = self._pass_id(index)
        self._check_pass(self.service.get(pass_id), self.ledger.passes[pass_id])

    @rule(statuses=st.sets(st.sampled_from(sorted(STATUS))), page_size=st.integers(1, 4))
    def list(self, statuses: set[str], page_size: int) -> None:
        self._let_expire()
        listed = self.service.list_all(statuses=[STATUS[s] for s in statuses], page_size=page_size)
        wanted = {
            pass_id: model
            for pass_id, model in self.ledger.passes.items()
            if not statuses or model.status in statuses
        }
        assert [p.id for p in listed] == sorted(wanted, reverse=True)
        for id_pass in listed:
            self._check_pass(id_pass, wanted[id_pass.id])

    def _check_pass(self, id_pass: pb.IdPass, model: Model) -> None:
        seen = replace(
            model,
            status=NAME[id_pass.status],
            expire_us=id_pass.expire_time.ToMicroseconds(),
            end_us=id_pass.end_time.ToMicroseconds() if id_pass.HasField("end_time") else None,
            refunded=id_pass.fee_refunded,
            supersedes=id_pass.supersedes,
            superseded_by=id_pass.superseded_by,
        )
        assert seen == model

    @rule()
    def events_tell_the_same_story(self) -> None:
        self._let_expire()
        told_status: dict[str, str] = {}
        refunds = 0.0
        for expected_sequence, event in enumerate(self.service.events(), start=1):
            assert event.sequence == expected_sequence
            before = NAME.get(event.from_status)
            assert told_status.get(event.id_pass_id) == before
            assert before is None or NAME[event.to_status] in NEXT[before]
            told_status[event.id_pass_id] = NAME[event.to_status]
            refunds += event.refund.units + event.refund.nanos / 1e9
        assert told_status == {i: m.status for i, m in self.ledger.passes.items()}
        assert refunds == self.ledger.refunded

    @invariant()
    def totals_agree(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self._let_expire()
        account = self.service.account()
        assert account.slots_in_use == self.ledger.in_flight()
        charged, refunded = account.fees_charged, account.fees_refunded
        assert charged.units + charged.nanos / 1e9 == self.ledger.charged
        assert refunded.units + refunded.nanos / 1e9 == self.ledger.refunded


@contextlib.contextmanager
def sqlite_file() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/idpass.db"
        make_store(url)
        yield url


@pytest.mark.scaled
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_account_is_as_its_model(kind: str, request: pytest.FixtureRequest) -> None:
    class OneAccountOfThisKind(OneAccount):
        databases = staticmethod(
            sqlite_file if kind == "sqlite" else request.getfixturevalue("postgres_databases")
        )

    run_state_machine_as_test(
        OneAccountOfThisKind,
        settings=settings(
            max_examples=times(every_day=15, a_minute=6), stateful_step_count=40, deadline=None
        ),
    )
