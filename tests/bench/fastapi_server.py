"""The same call over HTTP/JSON: FastAPI, SQLAlchemy's ORM, uvicorn; a commit per call.

It writes the same columns of the same tables, as durably (WAL, synchronous=FULL), and is tuned
as well as its kind allows: uvloop and httptools under uvicorn, no access log, the tables read
once at the start, one pooled connection behind a lock (see ordinary_server for why), and no
column read back after the commit.

usage: python -m bench.fastapi_server DATABASE
"""
# The check of types has to pass where the bench's own requirements are not installed:
# mypy: disable-error-code="import-not-found, attr-defined", allow-subclassing-any

import hashlib
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import uuid_utils
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import StaticPool, Table, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Session
from sqlite_utils.utils import sqlite3

from bench.serving import say_serving
from idpass_server.store.sqlite.checkpoints import CHECKPOINT_PAGES
from idpass_server.store.sqlite.file import connect

DEMO = "demo"


class Base(DeclarativeBase):
    pass


def _engine(path: Path) -> Any:
    def connection() -> Any:
        made = connect(path)
        made.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return made

    engine = create_engine("sqlite://", creator=connection, module=sqlite3, poolclass=StaticPool)
    # SQLAlchemy leaves BEGIN to the driver, which would take the write lock too late.
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


ENGINE = _engine(Path(sys.argv[1]))
LOCK = threading.Lock()


class Account(Base):
    __table__ = Table("accounts", Base.metadata, autoload_with=ENGINE)


class Pass(Base):
    __table__ = Table("passes", Base.metadata, autoload_with=ENGINE)


class Event(Base):
    __table__ = Table("events", Base.metadata, autoload_with=ENGINE)


class Money(BaseModel):
    currency_code: str
    units: int
    nanos: int


class CancelRequest(BaseModel):
    id: UUID
    request_id: str | None = None
    reason: str = ""
    note: str = ""
    expected_status: str | None = None


class CancelResponse(BaseModel):
    status: str
    fee_refunded: bool
    reference: str
    refund: Money | None
    previous_status: str
    cancel_time_us: int


def cancel(request: CancelRequest) -> CancelResponse:
    content = [str(request.id), request.reason, request.note, request.expected_status]
    digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
    with LOCK, Session(ENGINE, expire_on_commit=False) as session, session.begin():
        made, currency = _cancel(session, request, digest)
    refund = None
    if made.refund_micros is not None:
        units, micros = divmod(made.refund_micros, 1_000_000)
        refund = Money(currency_code=currency, units=units, nanos=micros * 1_000)
    return CancelResponse(
        status="cancelled",
        fee_refunded=refund is not None,
        reference=made.reference,
        refund=refund,
        previous_status=made.from_status,
        cancel_time_us=made.event_time_us,
    )


def _cancel(session: Session, request: CancelRequest, digest: str) -> tuple[Any, str]:
    id_pass: Any = session.get(Pass, (DEMO, str(request.id)))
    if id_pass is None:
        raise HTTPException(404, f"there is no pass {request.id}")
    if request.request_id and session.scalar(
        select(Event.sequence).where(Event.account == DEMO, Event.request_id == request.request_id)
    ):
        raise HTTPException(400, "request_id was used before")
    now_us = time.time_ns() // 1000
    if id_pass.end_time_us is not None or id_pass.expire_time_us <= now_us:
        raise HTTPException(400, f"the pass is {id_pass.status}")
    refund_micros = None if id_pass.status == "in_progress" else id_pass.fee_micros
    account: Any = session.get(Account, DEMO)
    account.slots_in_use -= 1
    account.refunded_micros += refund_micros or 0
    account.last_sequence += 1
    made: Any = Event(
        account=DEMO,
        sequence=account.last_sequence,
        id_pass_id=id_pass.id,
        from_status=id_pass.status,
        to_status="cancelled",
        event_time_us=now_us,
        caller=DEMO,
        request_id=request.request_id,
        request_digest=digest if request.request_id else None,
        reference=str(uuid_utils.uuid7()),
        currency=id_pass.currency,
        charge_micros=None,
        refund_micros=refund_micros,
        reason=request.reason,
        previous_sequence=id_pass.event_sequence,
    )
    session.add(made)
    id_pass.status = "cancelled"
    id_pass.fee_refunded = int(refund_micros is not None)
    id_pass.update_time_us = now_us
    id_pass.end_time_us = now_us
    id_pass.cancel_reason = request.reason
    id_pass.cancel_note = request.note
    id_pass.caller = DEMO
    id_pass.event_sequence = account.last_sequence
    return made, id_pass.currency


def main() -> None:
    app = FastAPI()
    app.add_api_route("/idpass/cancel", cancel, methods=["POST"], response_model=CancelResponse)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        lifespan="off",
        # Callers stay connected between the rounds.
        timeout_keep_alive=600,
    )
    # The socket takes connections from now on, so that it may be said before uvicorn runs.
    say_serving(listening.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
