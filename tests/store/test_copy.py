"""Moving from SQLite to PostgreSQL: everything, verified, or nothing."""

from pathlib import Path
from typing import Any

import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.webhooks import Attempt, DeliveryState, Webhook
from idpass_server.store import CannotOpen, copying, opening
from idpass_server.store.webhooks import Done, Progress
from kit.serving import url_of
from kit.support import Service, cli, problems, process, refused


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A database with something of everything in it."""
    db = tmp_path / "idpass.db"
    service = Service(db)
    for status in ("new", "opened", "in_progress", "complete", "expired", "failed", "cancelled"):
        service.pass_in(status)
    service.register(supersedes=service.pass_in("opened"), request_id="s")
    service.register(applicant_reference="Zoë \\N 𝕏", request_id="r", link_validity_days=2)
    service.cancel(service.pass_in("new"), request_id="c", note="line\n\tline\\.")
    service.stop()
    assert (
        cli(
            "account",
            "create",
            "acme",
            "--slots",
            "9",
            "--fee",
            "USD 1.25",
            "--db",
            f"sqlite:///{db}",
        ).returncode
        == 0
    )
    store = opening.open_store(f"sqlite:///{db}")
    webhook = Webhook(
        *("demo", new_uuid(), "https://example.com/", "", "active", "", 1, 0, 0, 1, "ann", 1, 1)
    )
    store.webhooks.create(webhook, 2)
    done = Done(2, new_uuid(), "id_pass.opened", 1, DeliveryState.PENDING, 1, 2)
    attempts = [(2, Attempt(1, 1, 2, None, "timeout"))]
    assert store.webhooks.save([Progress(webhook, [done], attempts)], 1)
    store.close()
    return db


def seen(service: Service) -> list[object]:
    return [service.account(), service.list_all(), service.events()]


def test_everything_is_moved_and_old_request_ids_answer_as_they_did(
    source: Path, postgres_db: str
) -> None:
    done = cli("copy", "--from", f"sqlite:///{source}", "--to", postgres_db)
    assert done.returncode == 0, done.stderr
    assert "2 rows" in done.stdout
    assert problems(postgres_db) == []
    before, after = Service(source), Service(postgres_db)
    try:
        assert seen(after) == seen(before)
        cancelled = [p.id for p in before.list_all() if p.cancellation.note]
        for service in (before, after):
            receipts: list[Any] = [
                service.register(
                    applicant_reference="Zoë \\N 𝕏", request_id="r", link_validity_days=2
                ),
                service.cancel(cancelled[0], request_id="c", note="line\n\tline\\."),
            ]
            assert all(receipt.replayed for receipt in receipts)
            assert service.register().id_pass.id
        assert after.account() == before.account()
    finally:
        before.stop()
        after.stop()
    assert problems(postgres_db) == []


def test_a_target_that_holds_anything_is_refused(source: Path, postgres_db: str) -> None:
    service = Service(postgres_db)
    service.register()
    service.stop()
    done = cli("copy", "--from", f"sqlite:///{source}", "--to", postgres_db)
    assert (done.returncode, "copy to a new database" in done.stderr) == (1, True)


def test_a_source_that_is_being_served_is_refused(source: Path, postgres_db: str) -> None:
    with process(source):
        done = cli("copy", "--from", f"sqlite:///{source}", "--to", postgres_db)
    assert (done.returncode, "is being served" in done.stderr) == (1, True)


@pytest.mark.parametrize("table", [table.name for table in copying.TABLES])
def test_what_is_read_back_otherwise_is_not_committed(
    source: Path, postgres_db: str, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    write = copying._write

    def write_and_spoil(*args: object) -> copying.Copied:
        written = write(*args)  # type: ignore[arg-type]
        spoilt = {
            "accounts": "UPDATE accounts SET fee_micros = fee_micros + 1",
            "passes": "DELETE FROM passes WHERE status = 'failed'",
            "timers": "UPDATE timers SET expire_time_us = expire_time_us + 1",
            "events": "UPDATE events SET caller = 'x' WHERE sequence = 3",
            "history": "UPDATE history SET begin_time_us = 0",
            "history_gaps": "INSERT INTO history_gaps VALUES ('demo', 1, 2)",
            "purged_totals": "INSERT INTO purged_totals VALUES ('demo', 0, 0, 0, 0)",
            "admin_log": "UPDATE admin_log SET who = 'x'",
            "webhooks": "UPDATE webhooks SET cursor = 1",
            "webhook_deliveries": "UPDATE webhook_deliveries SET attempts = 5",
            "webhook_attempts": "DELETE FROM webhook_attempts",
        }
        if args[2].name == table:  # type: ignore[attr-defined]
            args[1].execute(spoilt[table])  # type: ignore[attr-defined]
        return written

    monkeypatch.setattr(copying, "_write", write_and_spoil)
    with pytest.raises(CannotOpen, match=f"{table}: .* nothing was copied"):
        opening.copy_store(f"sqlite:///{source}", postgres_db, lambda _steps: lambda _moved: None)
    counts = opening.audit_store(postgres_db).counts
    assert counts == {"accounts": 1, "passes": 0, "events": 0}


def test_a_copy_that_is_interrupted_leaves_nothing_and_can_be_run_again(
    source: Path, postgres_db: str
) -> None:
    def begin(_steps: int) -> object:
        steps = iter([None, None, None])

        def moved(_rows: int) -> None:
            try:
                next(steps)
            except StopIteration:
                raise KeyboardInterrupt from None

        return moved

    with pytest.raises(KeyboardInterrupt):
        opening.copy_store(f"sqlite:///{source}", postgres_db, begin)  # type: ignore[arg-type]
    counts = opening.audit_store(postgres_db).counts
    assert counts == {"accounts": 1, "passes": 0, "events": 0}
    assert cli("copy", "--from", f"sqlite:///{source}", "--to", postgres_db).returncode == 0


@pytest.mark.parametrize(
    ("source_url", "target_url", "code", "said"),
    [
        ("sqlite:///nothing.db", "postgresql://localhost/x", 1, "/nothing.db; is the path right"),
        ("postgresql://localhost/x", "sqlite:///idpass.db", 2, "copy goes --from sqlite"),
        ("sqlite:///a.db", "sqlite:///b.db", 2, "copy goes --from sqlite"),
    ],
)
def test_a_copy_that_cannot_be_is_said_in_a_line(
    tmp_path: Path, source_url: str, target_url: str, code: int, said: str
) -> None:
    done = cli("copy", "--from", source_url, "--to", target_url, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True)
    assert "Traceback" not in done.stderr


def test_a_copy_goes_on_with_the_history(source: Path, postgres_db: str) -> None:
    begun = opening.begin_history(url_of(source))
    opening.copy_store(url_of(source), postgres_db, lambda _: lambda _: None)
    service = Service(postgres_db)
    try:
        account = service.account()
        assert (account.history, account.last_sequence) == (begun.id, begun.base_sequence)
        error = refused(lambda: next(service.watch(after_sequence=begun.base_sequence - 1)))
        assert error.reason == "HISTORY_LOST"
    finally:
        service.stop()
    assert problems(postgres_db) == []
