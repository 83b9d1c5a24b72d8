"""The demo: cancels a pass in every status, on a real server with a throw-away database."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2
from google.type import money_pb2
from tabulate import tabulate

from idpass.v1.id_pass_pb2 import IdPassStatus
from idpass.v1.id_pass_service_pb2 import (
    AdvanceRequest,
    CancelRequest,
    CancelResponse,
    GetAccountRequest,
    RegisterRequest,
)
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from idpass_server.config import Settings
from idpass_server.hosting.server import Server
from idpass_server.rules.money import MICROS, show_money
from idpass_server.rules.records import Money, Status
from idpass_server.store.audit import audit
from idpass_server.store.sqlite.file import connect

if TYPE_CHECKING:
    from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceAsyncStub

WAYS: Final[dict[Status, tuple[Status, ...]]] = {
    Status.NEW: (),
    Status.OPENED: (Status.OPENED,),
    Status.IN_PROGRESS: (Status.OPENED, Status.IN_PROGRESS),
    Status.COMPLETE: (Status.OPENED, Status.IN_PROGRESS, Status.COMPLETE),
    Status.EXPIRED: (Status.EXPIRED,),
    Status.FAILED: (Status.OPENED, Status.IN_PROGRESS, Status.FAILED),
    Status.CANCELLED: (Status.CANCELLED,),
}
"""The steps that bring a new pass into each status."""

REFUNDED: Final = {Status.NEW: True, Status.OPENED: True, Status.IN_PROGRESS: False}
REASON: Final = {
    Status.COMPLETE: "PASS_COMPLETE",
    Status.EXPIRED: "PASS_EXPIRED",
    Status.FAILED: "PASS_FAILED",
    Status.CANCELLED: "PASS_ALREADY_CANCELLED",
}
"""The expected outcomes, stated independently of the table that they check."""


class Row(NamedTuple):
    """One line of the demo's table. Args: right: whether the outcome is the expected one."""

    before: Status
    answer: str
    refund: str
    retry: str
    right: bool


async def demo() -> bool:
    """Prints a row for each status. Returns whether every outcome is as expected."""
    with tempfile.TemporaryDirectory(prefix="idpass-demo-") as folder:
        path = Path(folder) / "demo.db"
        server = Server(Settings(listen="127.0.0.1:0", db=f"sqlite:///{path}"))
        address = await server.start()
        print(f"Serving on {address} with a throw-away database.\n")
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = IdPassServiceStub(channel)
                rows = [await _row(stub, before) for before in WAYS]
                account = await stub.GetAccount(GetAccountRequest())
        finally:
            server.stop()
            await server.wait()
        problems = audit(connect(path, read_only=True)).problems
    header = ("before", "CancelIdPass answers", "refund", "the same call again")
    print(tabulate([row[:4] for row in rows], header))
    print(
        f"\nFees charged {_shown(account.fees_charged)}, refunded "
        f"{_shown(account.fees_refunded)}; slots in use {account.slots_in_use}."
    )
    for problem in problems:
        print(f"audit: {problem}")
    right = not problems and all(row.right for row in rows) and account.slots_in_use == 0
    print("Every row is as the lifecycle says." if right else "Something is NOT as it should be.")
    return right


async def _row(stub: "IdPassServiceAsyncStub", before: Status) -> Row:
    registered = await stub.RegisterIdPass(RegisterRequest(applicant_reference=f"demo-{before}"))
    pass_id = registered.id_pass.id
    for step in WAYS[before]:
        if step is Status.CANCELLED:
            await stub.CancelIdPass(CancelRequest(id=pass_id))
        else:
            to_status = IdPassStatus.Value(f"ID_PASS_STATUS_{step.name}")
            await stub.AdvanceIdPass(AdvanceRequest(id=pass_id, to_status=to_status))
    refunded_before = await _fees_refunded(stub)
    first = await _cancel(stub, pass_id)
    second = await _cancel(stub, pass_id)
    refunded = await _fees_refunded(stub) - refunded_before
    if before in REASON:
        right = first == second == REASON[before] and refunded == 0
        return Row(before, f"FAILED_PRECONDITION {first}", "-", "the same error", right)
    if isinstance(first, str) or isinstance(second, str):
        return Row(before, str(first), "-", str(second), right=False)
    right = (
        first.fee_refunded is REFUNDED[before]
        and not first.replayed
        and second.replayed
        and first.reference == second.reference
        and refunded == REFUNDED[before] * _micros(registered.id_pass.fee)
    )
    return Row(
        before,
        "OK cancelled",
        _shown(first.refund) if first.fee_refunded else "none: a step was taken",
        f"the first answer, {'refunded once' if refunded else 'no refund'}",
        right,
    )


async def _cancel(stub: "IdPassServiceAsyncStub", pass_id: str) -> CancelResponse | str:
    """The answer, or the reason of the refusal."""
    try:
        return await stub.CancelIdPass(CancelRequest(id=pass_id, request_id=f"demo-{pass_id}"))
    except grpc.aio.AioRpcError as error:
        status = status_pb2.Status()
        info = error_details_pb2.ErrorInfo()
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                status.ParseFromString(value)
        for detail in status.details:
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
        return info.reason or error.code().name


async def _fees_refunded(stub: "IdPassServiceAsyncStub") -> int:
    return _micros((await stub.GetAccount(GetAccountRequest())).fees_refunded)


def _micros(money: money_pb2.Money) -> int:
    return int(money.units * MICROS + money.nanos // 1_000)


def _shown(money: money_pb2.Money) -> str:
    return show_money(Money(money.currency_code, _micros(money)))
