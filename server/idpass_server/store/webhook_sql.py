"""The statements on webhooks' tables, in SQL that SQLite and PostgreSQL both speak.

Parameters are named `:name`. `{rows}` is the table of the arrays in the JSON parameter `rows`, with
one column `value`.
"""

from typing import Final

from idpass_server.rules.webhooks import Webhook

_COLUMNS: Final = ", ".join(Webhook._fields)
_SHOWN: Final = f"{_COLUMNS} FROM webhooks"
DELIVERY: Final = (
    *("account", "webhook_id", "sequence", "id_pass_id", "event_type", "event_time_us"),
    *("state", "attempts", "next_time_us"),
)
"""The columns of `webhook_deliveries`."""
ATTEMPT: Final = (
    *("account", "webhook_id", "sequence", "number", "time_us", "duration_ms"),
    *("status_code", "error", "answer"),
)
"""The columns of `webhook_attempts`."""
_DELIVERY: Final = ", ".join(DELIVERY)
_ATTEMPT: Final = ", ".join(ATTEMPT)
_KEY: Final = "account = :account AND webhook_id = :id"

SELECT: Final = f"SELECT {_SHOWN} WHERE account = :account AND id = :id"
SELECT_OF_ACCOUNT: Final = f"SELECT {_SHOWN} WHERE account = :account ORDER BY create_time_us, id"
_ENABLED: Final = "JOIN accounts ON accounts.name = webhooks.account"
SELECT_ENABLED: Final = f"""
    SELECT {", ".join(f"webhooks.{name}" for name in Webhook._fields)}, accounts.last_sequence
    FROM webhooks {_ENABLED} WHERE accounts.disabled = 0"""
# Every change of an endpoint changes one of them.
STAMP: Final = f"""
    SELECT count(*), sum(webhooks.version), max(webhooks.id), sum(accounts.disabled)
    FROM webhooks {_ENABLED}"""
SELECT_BY_REQUEST: Final = f"SELECT {_SHOWN} WHERE account = :account AND request_id = :request_id"
SELECT_LAST_SEQUENCE: Final = "SELECT last_sequence FROM accounts WHERE name = :account"
COUNT: Final = "SELECT count(*) FROM webhooks WHERE account = :account"
INSERT: Final = (
    f"INSERT INTO webhooks ({_COLUMNS}) VALUES ({', '.join(f':{n}' for n in Webhook._fields)})"
)
_CHANGES: Final = ", ".join(f"{name} = :{name}" for name in Webhook._fields[2:])
UPDATE: Final = f"""
    UPDATE webhooks SET {_CHANGES}
    WHERE account = :account AND id = :id"""
DELETE: Final = (
    "DELETE FROM webhook_attempts WHERE account = :account AND webhook_id = :id",
    "DELETE FROM webhook_deliveries WHERE account = :account AND webhook_id = :id",
    "DELETE FROM webhooks WHERE account = :account AND id = :id",
)
DUE_AT_ONCE: Final = (
    f"UPDATE webhook_deliveries SET next_time_us = 0 WHERE {_KEY} AND state = 'pending'"
)
FORGET_FROM: Final = (
    f"DELETE FROM webhook_attempts WHERE {_KEY} AND sequence >= :sequence",
    f"DELETE FROM webhook_deliveries WHERE {_KEY} AND sequence >= :sequence",
)
FORGET_ATTEMPTS: Final = f"DELETE FROM webhook_attempts WHERE {_KEY} AND sequence = :sequence"
AGAIN: Final = f"""
    INSERT INTO webhook_deliveries ({_DELIVERY})
    VALUES (:account, :id, :sequence, :id_pass_id, :event_type, :event_time_us, 'pending', 0, 0)
    ON CONFLICT (account, webhook_id, sequence)
    DO UPDATE SET state = 'pending', attempts = 0, next_time_us = 0"""
SELECT_PENDING: Final = f"""
    SELECT sequence, id_pass_id, event_type, event_time_us, attempts, next_time_us
    FROM webhook_deliveries
    WHERE {_KEY} AND state = 'pending' ORDER BY sequence"""
SELECT_DELIVERIES: Final = f"""
    SELECT sequence, id_pass_id, event_type, state, next_time_us FROM webhook_deliveries
    WHERE {_KEY} AND sequence < :before_sequence ORDER BY sequence DESC LIMIT :limit"""
SELECT_ATTEMPTS: Final = f"""
    SELECT {", ".join(ATTEMPT[2:])} FROM webhook_attempts
    WHERE {_KEY} AND sequence >= :oldest AND sequence <= :newest ORDER BY sequence, number"""


def _value(index: int, kind: str = "bigint") -> str:
    return f"CAST(value ->> {index} AS {kind})"


def _of_version(index: int) -> str:
    """Only rows of endpoints that no caller has changed meanwhile."""
    return (
        "JOIN webhooks ON webhooks.account = value ->> 0 AND webhooks.id = value ->> 1 "
        f"AND webhooks.version = {_value(index)} WHERE true"
    )


SAVE_WEBHOOKS: Final = f"""
    UPDATE webhooks SET cursor = {_value(3)}, state = value ->> 4, paused_reason = value ->> 5,
        last_success_us = {_value(6)}, failing_since_us = {_value(7)}
    FROM {{rows}} WHERE webhooks.account = value ->> 0 AND webhooks.id = value ->> 1
        AND webhooks.version = {_value(2)}"""
SAVE_DELIVERIES: Final = f"""
    INSERT INTO webhook_deliveries ({_DELIVERY})
    SELECT value ->> 0, value ->> 1, {_value(2)}, value ->> 3, value ->> 4, {_value(5)},
        value ->> 6, {_value(7)}, {_value(8)}
    FROM {{rows}} {_of_version(9)}
    ON CONFLICT (account, webhook_id, sequence) DO UPDATE SET state = excluded.state,
        attempts = excluded.attempts, next_time_us = excluded.next_time_us"""
SAVE_ATTEMPTS: Final = f"""
    INSERT INTO webhook_attempts ({_ATTEMPT})
    SELECT value ->> 0, value ->> 1, {_value(2)}, {_value(3)}, {_value(4)}, {_value(5)},
        {_value(6)}, value ->> 7, value ->> 8
    FROM {{rows}} {_of_version(9)}
    ON CONFLICT (account, webhook_id, sequence, number) DO NOTHING"""
_OLD: Final = f"""
    SELECT sequence FROM webhook_deliveries WHERE {_KEY} AND state = :state
    ORDER BY sequence DESC LIMIT 1 OFFSET :kept"""
PRUNE: Final = (
    f"""DELETE FROM webhook_attempts WHERE {_KEY} AND sequence IN (
        SELECT sequence FROM webhook_deliveries WHERE {_KEY} AND state = :state
        AND sequence <= ({_OLD}))""",
    f"""DELETE FROM webhook_deliveries WHERE {_KEY} AND state = :state
        AND sequence <= ({_OLD})""",
)
