"""Records for tests of the rules."""

from typing import Any

from idpass_server.rules.records import Account, Pass, Status

NOW_US = 1_800_000_000_000_000
FEE = 4_500_000
TERMINAL = [Status.COMPLETE, Status.EXPIRED, Status.FAILED, Status.CANCELLED]


def account(**changes: Any) -> Account:
    return Account("acme", 10, 3, "AUD", FEE, 9 * FEE, 2 * FEE, 41)._replace(**changes)


def a_pass(status: Status) -> Pass:
    ended = status in TERMINAL
    return Pass(
        account="acme",
        id="0198c0de-0000-7000-8000-000000000001",
        status=status,
        currency="AUD",
        fee_micros=FEE,
        fee_refunded=0,
        applicant_reference="",
        supersedes=None,
        superseded_by=None,
        create_time_us=NOW_US - 100,
        update_time_us=NOW_US - 50,
        expire_time_us=NOW_US + 100,
        consent_time_us=None,
        end_time_us=NOW_US - 50 if ended else None,
        cancel_reason="" if status is Status.CANCELLED else None,
        cancel_note="" if status is Status.CANCELLED else None,
        caller="x",
        event_sequence=41,
    )
