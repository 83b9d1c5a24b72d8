"""What a support desk asks of a database of either kind, whoever owns the pass."""

from collections.abc import Iterator
from typing import Any, Final

from idpass_server.rules.records import Event, Pass
from idpass_server.store import either
from idpass_server.store.rows import columns

# The key begins with the account, so each account is looked into: a look-up each, and no scan.
_BY_ID: Final = f"""
    SELECT {columns(Pass, "passes")} FROM accounts
    CROSS JOIN passes WHERE passes.account = accounts.name AND passes.id = :id
        AND (CAST(:account AS text) IS NULL OR accounts.name = :account)"""
_BY_APPLICANT: Final = f"""
    SELECT {columns(Pass, "passes")} FROM accounts
    CROSS JOIN passes WHERE passes.account = accounts.name
        AND passes.applicant_reference = :applicant_reference AND passes.applicant_reference <> ''
        AND (CAST(:account AS text) IS NULL OR accounts.name = :account)
    ORDER BY passes.account, passes.id DESC"""
_EVENTS: Final = f"""
    WITH RECURSIVE chain (sequence) AS (
        SELECT CAST(:event_sequence AS bigint)
        UNION ALL
        SELECT events.previous_sequence FROM chain
        JOIN events ON events.account = :account AND events.sequence = chain.sequence
        WHERE events.previous_sequence IS NOT NULL
    )
    SELECT {columns(Event, "events")} FROM chain
    JOIN events ON events.account = :account AND events.sequence = chain.sequence
    ORDER BY events.sequence"""


def passes_by_id(connection: Any, pass_id: str, account: str | None = None) -> list[Pass]:
    """The passes with an id: one, unless accounts were filled by other means than the service.

    Args:
        connection: in a read transaction.
        pass_id: UUID in lower case.
        account: only a pass of this account; None for any.
    """
    rows = either.run(connection, _BY_ID, id=pass_id, account=account)
    return list(map(Pass._make, rows))


def passes_by_applicant(
    connection: Any, applicant_reference: str, account: str | None = None
) -> Iterator[Pass]:
    """Yields the passes with exactly this applicant reference, by account, newest first.

    Args:
        connection: in a read transaction.
        applicant_reference: not "".
        account: only passes of this account; None for any.
    """
    values = {"applicant_reference": applicant_reference, "account": account}
    return map(Pass._make, either.stream(connection, _BY_APPLICANT, **values))


def events_of(connection: Any, id_pass: Pass) -> list[Event]:
    """The events of a pass, in order.

    Args:
        connection: in the read transaction that the pass comes from.
        id_pass: the pass.
    """
    values = {"account": id_pass.account, "event_sequence": id_pass.event_sequence}
    return list(map(Event._make, either.run(connection, _EVENTS, **values)))
