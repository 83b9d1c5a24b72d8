"""Webhooks of a restored database: a receiver is told by another history, and by other ids."""

from pathlib import Path

from kit.hooked import Hooked
from kit.receiver import Receiver
from kit.support import cli, eventually


def test_after_a_restore_deliveries_go_on_under_another_history(
    receiver: Receiver, tmp_path: Path
) -> None:
    db, backup = tmp_path / "idpass.db", tmp_path / "backup.db"
    server = Hooked(db, tmp_path)
    webhook, secret = server.hook(receiver.url)
    server.register()
    receiver.wait_for(1)
    eventually(lambda: server.webhook(webhook.id).cursor == 1)
    assert cli("backup", "--db", f"sqlite:///{db}", "--to", str(backup)).returncode == 0
    server.register()  # which the restored database will not know
    receiver.wait_for(2)
    server.stop()
    restored = cli("restore", str(backup), "--db", f"sqlite:///{db}", "--yes")
    assert restored.returncode == 0, restored.stderr
    server = Hooked(db, tmp_path)
    # Nothing is behind, though the account's numbers have skipped ahead.
    eventually(lambda: server.webhook(webhook.id).cursor in {1, server.account().last_sequence})
    found = server.server.metrics.registry.get_sample_value("idpass_webhook_lag_events_max")
    assert found == 0
    pass_id = server.register().id_pass.id
    before, lost, after = receiver.wait_for(3)
    server.stop()
    assert after.pass_id == pass_id
    assert after.verified(secret)["data"]["history"] != before.json["data"]["history"]
    assert lost.json["data"]["history"] == before.json["data"]["history"]
    assert after.sequence > lost.sequence
    assert len({each.id for each in receiver.requests}) == 3
