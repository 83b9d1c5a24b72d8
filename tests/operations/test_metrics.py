"""Metrics: each that is documented, alerted on or drawn exists in a real server, and moves."""

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from idpass import Unauthenticated
from idpass_server.hosting import figures
from idpass_server.store.observing import STEPS, StoreObserver
from idpass_server.store.sqlite import checkpoints
from idpass_server.store.sqlite.store import SqliteStore
from kit.commit_cutter import CommitCutter, Cut
from kit.documents import PAGES, rows
from kit.metered import (
    CANCEL,
    DEPLOY,
    Family,
    Metered,
    families,
    names_in,
    of_other_servers,
    queries,
)
from kit.probing import Samples, get, scrape, total
from kit.secure import Secure
from kit.serving import COMMAND
from kit.support import Service, eventually

RULES = re.findall(
    r"^ *- alert: (\w+)\n *expr: (.+?)\n(?: *for: \w+\n)? *labels: \{ severity: (\w+) \}\n"
    r" *annotations:\n *summary: [^\n]+\n *runbook: ([^\n]+)$",
    (DEPLOY / "prometheus/rules.yml").read_text(),
    re.MULTILINE | re.DOTALL,
)
"""Name, expression, severity and runbook of each."""
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())

SEEN_TO_MOVE_ELSEWHERE = {
    "idpass_store_errors_total": "test_while_the_store_refuses_the_metrics_say_so",
    "idpass_store_up": "test_while_the_store_refuses_the_metrics_say_so",
    "idpass_overdue_passes": "test_overdue_passes_are_counted",
    "idpass_oldest_overdue_seconds": "test_overdue_passes_are_counted",
    "idpass_sqlite_checkpoint_seconds": "test_each_checkpoint_is_told",
    "idpass_failed_checkpoints": "test_checkpoints_that_fail_are_counted",
    "idpass_postgresql_reconnects_total": "test_a_commit_that_is_settled_is_counted",
    "idpass_postgresql_commits_settled_total": "test_a_commit_that_is_settled_is_counted",
    "idpass_log_lines_dropped_total": "test_log_lines_that_cannot_be_written_are_counted",
    "idpass_worker_up": "test_all_workers_are_scraped_in_one_place",
    "idpass_worker_restarts_total": "test_all_workers_are_scraped_in_one_place",
    "idpass_watchers_lag_events_max": "test_what_a_lagging_standby_does_not_show_yet_is_read_again",
    # What they show does not change while a server runs, or only little by little.
    "idpass_build_info": "",
    "idpass_tls_certificate_not_after_timestamp_seconds": "",
    "idpass_sqlite_disk_free_bytes": "",
    "idpass_sqlite_db_bytes": "",  # it grows when the WAL is folded into it
    "idpass_account_slot_limit": "",
    "idpass_calls_in_flight": "",
    "idpass_pending_commands": "",
    "idpass_watchers": "",
    "process_resident_memory_bytes": "",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    running = Metered(tmp_path_factory.mktemp("metered"))
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def driven(server: Metered) -> tuple[Samples, Samples]:
    """What is scraped before everything has happened, and after."""
    eventually(lambda: "idpass_account_slots_in_use" in server.shown())
    before = server.scrape()
    server.drive()
    eventually(lambda: total(server.scrape(), "idpass_config_rejected") == 1)
    eventually(lambda: total(server.scrape(), "idpass_account_slots_in_use") > 0)
    return before, server.scrape()


def family_of(name: str) -> str:
    """The metric that a sample belongs to."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_every_metric_is_listed_with_its_type_and_labels(
    server: Metered, driven: tuple[Samples, Samples]
) -> None:
    served = families(server.shown()) | of_other_servers()
    listed = {}
    for metric, kind, labels, _ in rows(PAGES["monitoring.md"], "metric | type"):
        (name,) = re.findall(r"`(\w+)`", metric)
        assert name not in listed
        listed[name] = Family(kind.partition(",")[0], tuple(sorted(re.findall(r"`(\w+)`", labels))))
    assert driven
    assert listed == served


def used() -> dict[str, str]:
    """What alerts, dashboard and documents ask for, with where that is."""
    asked = {f"alert {name}": expression for name, expression, *_ in RULES}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            asked[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    asked |= {f"query {number}": query for number, query in enumerate(queries(), start=1)}
    return asked


def test_twelve_questions_have_a_query_each() -> None:
    questions = PAGES["monitoring.md"].partition("## Twelve questions")[2].partition("\n## ")[0]
    assert len(queries()) == questions.count("```promql") == 12


@pytest.mark.parametrize("where", used())
def test_what_is_asked_for_exists_and_moves(where: str, driven: tuple[Samples, Samples]) -> None:
    before, after = driven
    elsewhere = of_other_servers()
    for name in names_in(used()[where]):
        found = {key: value for key, value in after.items() if key[0] == name}
        if not found:
            assert family_of(name) in elsewhere, name
        if family_of(name) not in SEEN_TO_MOVE_ELSEWHERE:
            assert any(before.get(key) != value for key, value in found.items()), name


def test_what_moves_elsewhere_is_seen_there() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    for test in filter(None, SEEN_TO_MOVE_ELSEWHERE.values()):
        assert f"def {test}" in tests, test


def test_what_was_committed_is_counted_once_and_replays_and_refusals_are_not(
    driven: tuple[Samples, Samples],
) -> None:
    before, after = driven

    def rise(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert rise("idpass_transitions_total", to_status="new") == 4  # one of them over HTTP
    assert rise("idpass_transitions_total", to_status="cancelled") == 2
    assert rise("idpass_transitions_total") == 7
    assert rise("idpass_charged_micros_total", currency="AUD") == 4 * 4_500_000
    assert rise("idpass_refunded_micros_total", currency="AUD") == 2 * 4_500_000
    ended = "grpc_server_call_duration_seconds_count"
    assert rise(ended, grpc_method=CANCEL, grpc_status="OK") == 2
    assert rise("grpc_server_call_started_total", grpc_method="other") == 1
    assert rise("idpass_refusals_total", method="BatchCancelIdPasses") == 1
    assert rise("idpass_late_results_total") == 1
    assert rise("idpass_unauthenticated_total", kind="token") == 1
    assert rise("idpass_unauthenticated_total", kind="missing") == 1
    assert rise("idpass_caller_refusals_total", caller="slow", reason="OVERLOADED") == 1
    callers = {dict(labels).get("caller") for name, labels in after if "caller_ref" in name}
    assert callers == {"ann", "slow"}
    assert rise("idpass_account_slots_in_use", account="acme") == 2
    assert total(after, "idpass_config_rejected", file="callers") == 1
    assert total(after, "idpass_config_rejected", file="certificates") == 0
    routes = "http_server_request_duration_seconds_count"
    assert rise(routes, http_route="/idpass/register", http_response_status_code="200") == 1
    assert rise(routes, http_route="/idpass/{id}", http_response_status_code="200") == 1
    assert rise(routes, http_route="other", http_response_status_code="404") == 1


def test_a_certificate_that_is_not_known_and_one_that_is_refused_are_seen(tmp_path: Path) -> None:
    server = Secure(tmp_path, metrics="127.0.0.1:0")
    place = server.server.listens["metrics"]
    try:
        stranger = server.clients.issue("spiffe://example.org/nobody")
        with server.client(stranger) as client, pytest.raises(Unauthenticated):
            client.account()
        eventually(lambda: total(scrape(place), "idpass_unauthenticated_total") == 1)
        assert total(scrape(place), "idpass_unauthenticated_total", kind="certificate") == 1
        ends = total(scrape(place), "idpass_tls_certificate_not_after_timestamp_seconds")
        pem = x509.load_pem_x509_certificate(server.pair.cert.read_bytes())
        assert ends == pem.not_valid_after_utc.timestamp()

        def refused_files() -> dict[str, float]:
            found = scrape(place)
            files = ("callers", "certificates")
            return {each: found["idpass_config_rejected", (("file", each),)] for each in files}

        assert refused_files() == {"callers": 0, "certificates": 0}
        server.pair.cert.write_text("none")
        server.read_again()
        assert refused_files() == {"callers": 0, "certificates": 1}
        server.pair.replace(server.servers.issue("localhost", to_day=60))
        server.read_again()
        assert refused_files() == {"callers": 0, "certificates": 0}
        later = total(scrape(place), "idpass_tls_certificate_not_after_timestamp_seconds")
        assert later > ends
    finally:
        server.stop()


def test_while_the_store_refuses_the_metrics_say_so(server: Metered) -> None:
    assert total(server.scrape(), "idpass_store_up") == 1
    before = total(server.scrape(), "idpass_store_errors_total", kind="unavailable")
    other = server.keep_locked()
    eventually(lambda: total(server.scrape(), "idpass_store_up") == 0)
    assert total(server.scrape(), "idpass_store_errors_total", kind="unavailable") > before
    other.close()
    eventually(lambda: total(server.scrape(), "idpass_store_up") == 1)


def test_a_scrape_is_answered_while_the_store_hangs_and_old_figures_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "INTERVAL_S", 0.01)
    monkeypatch.setattr(figures, "STALE_S", 0.5)
    service = Service(tmp_path / "idpass.db", metrics="127.0.0.1:0")
    place = service.server.listens["metrics"]
    try:
        eventually(lambda: "idpass_overdue_passes" in get(place, "/metrics").body)
        released, store = threading.Event(), service.server._store
        due = store.due

        def hang(*args: object) -> object:
            released.wait(30)
            return due(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "due", hang)
        eventually(lambda: "idpass_overdue_passes" not in get(place, "/metrics").body)
        found = scrape(place)
        assert total(found, "idpass_sqlite_disk_free_bytes") > 0
        assert total(found, "grpc_server_call_started_total") == 0
        released.set()
        eventually(lambda: "idpass_overdue_passes" in get(place, "/metrics").body)
    finally:
        service.stop()


def test_overdue_passes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "INTERVAL_S", 0.01)
    service = Service(tmp_path / "idpass.db", metrics="127.0.0.1:0")
    place = service.server.listens["metrics"]
    try:
        for _ in range(3):
            service.register(link_validity_days=1)
        monkeypatch.setattr(service.server._reads, "claim_sweep", _never)
        service.time.advance(days=1, us=60_000_000)
        eventually(lambda: total(scrape(place), "idpass_overdue_passes") == 3)
        assert 59 < total(scrape(place), "idpass_oldest_overdue_seconds") < 61
        monkeypatch.undo()
        eventually(
            lambda: total(scrape(place), "idpass_transitions_total", to_status="expired") == 3
        )
    finally:
        service.stop()


async def _never() -> bool:
    return False


class _Told(StoreObserver):
    def __init__(self) -> None:
        self.checkpoints: list[float] = []

    def checkpointed(self, seconds: float) -> None:
        self.checkpoints.append(seconds)


def test_each_checkpoint_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 8)
    monkeypatch.setattr(checkpoints, "CHECK_INTERVAL_S", 0.0)
    told = _Told()
    store = SqliteStore(tmp_path / "idpass.db", observer=told)
    changes = 0
    while len(told.checkpoints) < 2:  # the thread's, and the writer's of what is left
        changes += 1
        store.set_account("demo", slot_limit=changes, fee=None)
        store.check()
    store.close()
    assert changes > 1
    assert all(seconds > 0 for seconds in told.checkpoints)


def test_a_commit_that_is_settled_is_counted(postgres_db: str) -> None:
    cutter = CommitCutter(postgres_db)
    service = Service(cutter.url, metrics="127.0.0.1:0")
    place = service.server.listens["metrics"]
    try:
        passes = [service.register().id_pass.id for _ in range(3)]
        cutter.cuts.extend([Cut.AFTER, Cut.AFTER, Cut.BEFORE])
        for pass_id in passes:
            assert service.cancel(pass_id).fee_refunded
        found = scrape(place)
        settled = "idpass_postgresql_commits_settled_total"
        assert total(found, settled, outcome="stored") == 2
        assert total(found, settled, outcome="run_again") == 1
        assert total(found, settled, outcome="unknown") == 0
        assert total(found, "idpass_postgresql_reconnects_total") >= 3
        # Whether it was stored at first or later: once.
        assert total(found, "idpass_refunded_micros_total") == 3 * 4_500_000
        for step in STEPS:
            assert total(found, "idpass_store_commit_seconds_count", step=step) == 4
    finally:
        service.stop()
        cutter.close()


def test_log_lines_that_cannot_be_written_are_counted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--db", f"sqlite:///{tmp_path}/idpass.db", "--listen", "127.0.0.1:0")
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen([*COMMAND, "serve", *options, "--metrics", place], stderr=full) as running,
    ):
        try:
            eventually(lambda: _dropped(place) > 0)
        finally:
            running.terminate()


def _dropped(place: str) -> float:
    try:
        return total(scrape(place), "idpass_log_lines_dropped_total")
    except OSError:  # it does not listen yet
        return 0


def test_promtool_takes_the_rules_and_each_alert_fires() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: it is in Debian's package prometheus")
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run(
            [promtool, *command],
            cwd=DEPLOY / "prometheus",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_and_says_what_to_do() -> None:
    alerts = [name for name, *_ in RULES]
    listed = rows(PAGES["monitoring.md"], "alert | look at")
    assert [cell.strip("`") for cell, _ in listed] == alerts
    text = (DEPLOY / "prometheus/rules.yml").read_text()
    assert len(alerts) == text.count("- alert:") > 20
    tested = (DEPLOY / "prometheus/rules_test.yml").read_text()
    assert [alert for alert in alerts if f'alertname="{alert}"' not in tested] == []
    assert {severity for *_, severity, _ in RULES} == {"page", "ticket"}
    assert {runbook for *_, runbook in RULES} == {"server/docs/monitoring.md#alerts"}
