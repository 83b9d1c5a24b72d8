"""The ordinary implementation: grpcio's thread pool, one transaction and one commit per call.

It writes the same columns of the same tables, as durably (WAL, synchronous=FULL), and is tuned
as well as its kind allows:

* one connection behind a lock: SQLite has one writer at a time anyway, a lock hands over at once
  where SQLite's own busy handler sleeps and tries again, and one page cache stays warm;
* the request is checked and the answer made outside the lock;
* it writes no log and counts nothing.

usage: python -m bench.ordinary_server DATABASE
"""

import hashlib
import json
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import grpc
import uuid_utils

from bench.serving import say_serving
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import (
    IdPassServiceServicer,
    add_IdPassServiceServicer_to_server,
)
from idpass_server.config import Settings
from idpass_server.hosting.channel_options import options
from idpass_server.store.sqlite.checkpoints import CHECKPOINT_PAGES
from idpass_server.store.sqlite.file import connect

THREADS: Final = 32
_STATUS_OF_WORD: Final = {
    "new": pb.ID_PASS_STATUS_NEW,
    "opened": pb.ID_PASS_STATUS_OPENED,
    "in_progress": pb.ID_PASS_STATUS_IN_PROGRESS,
}
_REASON_WORD: Final = {
    value: "" if value == 0 else name.removeprefix("CANCEL_REASON_").lower()
    for name, value in pb.CancelReason.items()
}


class Refused(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class OrdinaryServicer(IdPassServiceServicer):
    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = connect(path)
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def CancelIdPass(
        self, request: service_pb.CancelRequest, context: Any
    ) -> service_pb.CancelResponse:
        try:
            id_ = str(UUID(request.id))
        except ValueError:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "id is not a UUID")
        content = [id_, request.reason, request.note, request.expected_status]
        digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
        reference = str(uuid_utils.uuid7())
        try:
            with self._lock:
                previous, currency, refund_micros, now_us = self._cancel(
                    id_, request, digest, reference
                )
        except Refused as refused:
            context.abort(refused.code, str(refused))
        response = service_pb.CancelResponse(
            status=pb.ID_PASS_STATUS_CANCELLED,
            fee_refunded=refund_micros is not None,
            reference=reference,
            previous_status=_STATUS_OF_WORD[previous],
        )
        response.cancel_time.FromMicroseconds(now_us)
        if refund_micros is not None:
            response.refund.currency_code = currency
            response.refund.units, micros = divmod(refund_micros, 1_000_000)
            response.refund.nanos = micros * 1_000
        return response

    def _cancel(
        self, id_: str, request: service_pb.CancelRequest, digest: str, reference: str
    ) -> tuple[str, str, int | None, int]:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            id_pass = execute(
                "SELECT status, currency, fee_micros, expire_time_us, end_time_us, event_sequence"
                " FROM passes WHERE account = 'demo' AND id = ?",
                (id_,),
            ).fetchone()
            if id_pass is None:
                raise Refused(grpc.StatusCode.NOT_FOUND, f"there is no pass {id_}")
            if request.request_id:
                known = execute(
                    "SELECT 1 FROM events WHERE account = 'demo' AND request_id = ?",
                    (request.request_id,),
                ).fetchone()
                if known is not None:
                    # Telling a retry its first answer is left out: no call here is a retry.
                    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "request_id was used before")
            status, currency, fee_micros, expire_time_us, end_time_us, event_sequence = id_pass
            now_us = time.time_ns() // 1000
            if end_time_us is not None or expire_time_us <= now_us:
                raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"the pass is {status}")
            refund_micros = None if status == "in_progress" else fee_micros
            reason = _REASON_WORD[request.reason]
            (sequence,) = execute(
                "UPDATE accounts SET slots_in_use = slots_in_use - 1,"
                " refunded_micros = refunded_micros + ?, last_sequence = last_sequence + 1"
                " WHERE name = 'demo' RETURNING last_sequence",
                (refund_micros or 0,),
            ).fetchone()
            execute(
                "UPDATE passes SET status = 'cancelled', fee_refunded = ?, update_time_us = ?,"
                " end_time_us = ?, cancel_reason = ?, cancel_note = ?, caller = 'demo',"
                " event_sequence = ? WHERE account = 'demo' AND id = ?",
                (refund_micros is not None, now_us, now_us, reason, request.note, sequence, id_),
            )
            execute(
                "INSERT INTO events VALUES"
                " ('demo', ?, ?, ?, 'cancelled', ?, 'demo', ?, ?, ?, ?, NULL, ?, ?, ?, 0)",
                (
                    sequence,
                    id_,
                    status,
                    now_us,
                    request.request_id or None,
                    digest if request.request_id else None,
                    reference,
                    currency,
                    refund_micros,
                    reason,
                    event_sequence,
                ),
            )
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        return status, currency, refund_micros, now_us


def main() -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = grpc.server(ThreadPoolExecutor(THREADS), options=options(Settings()))
    servicer = OrdinaryServicer(Path(sys.argv[1]))  # type: ignore[abstract]  # one rpc is enough
    add_IdPassServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say_serving(port)
    stop.wait()
    server.stop(1).wait()


if __name__ == "__main__":
    main()
