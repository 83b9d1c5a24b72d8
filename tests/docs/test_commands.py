"""Every command in the documents is run as it is written, or says here why it is not."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, Final

import click
import httpx
import pytest

from idpass import cli as client_cli
from idpass_server.cli import main
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Cancel, Register
from idpass_server.store.opening import open_store
from kit.commands import subcommands
from kit.documents import PAGES, blocks, command, is_a_test, spans, words
from kit.paths import ROOT
from kit.postgres import Postgres, programs
from kit.serving import url_of
from kit.shell import Shell
from kit.support import DAY_US, Process, cli, make_accounts, process

HERE: Final = "docs/test_commands.py::"
README: Final = "docs/test_docs.py::"
TLS: Final = "security/test_dev_certs.py::test_the_security_page_shows_how_tls_is_tried"
LITESTREAM: Final = "prove/test_litestream.py"
SUPPORT: Final = "docs/test_support.py::test_what_is_shown_is_printed"

RETENTION: Final = f"{HERE}test_an_accounts_data_are_erased_purged_and_exported"

HOW: Final = {
    "README.md": {
        "$ make demo": f"{README}test_the_demo_prints_what_is_shown",
        "$ make test": "not run: it is what runs this",
        "make serve": f"{HERE}test_make_serve_serves_the_sandbox",
        "curl localhost:8080/idpass/register": f"{README}test_the_curl_session_runs_as_shown",
        "curl localhost:8080/idpass/cancel": f"{README}test_the_curl_session_runs_as_shown",
        "grpcurl": f"{README}test_the_grpcurl_session_runs_as_shown",
    },
    "operating.md": {
        "pip install": "prove/test_packages.py::test_the_documented_installation_works",
        "export IDPASS_DB": f"{HERE}test_operating_from_the_start_to_a_restored_backup",
        "idpass-server serve": f"{HERE}test_operating_from_the_start_to_a_restored_backup",
        "idpass-server account": f"{HERE}test_operating_from_the_start_to_a_restored_backup",
        "idpass-server audit": f"{HERE}test_operating_from_the_start_to_a_restored_backup",
        "curl --fail": f"{HERE}test_operating_from_the_start_to_a_restored_backup",
    },
    "keeping.md": {
        "idpass-server backup": f"{HERE}test_operating_from_the_start_to_a_restored_backup",
        "idpass-server restore": f"{HERE}test_operating_from_the_start_to_a_restored_backup",
        "litestream restore": f"not run: {LITESTREAM} does the same elsewhere",
        "idpass-server new-history": "not run: operations/test_backup.py runs it on both stores",
        "idpass-server erase": RETENTION,
        "idpass-server purge": RETENTION,
        "idpass-server export": RETENTION,
        "idpass-server compact": RETENTION,
    },
    "security.md": {
        "idpass-server token": f"{HERE}test_a_tokens_digest_is_what_sha256sum_says",
        "printf": f"{HERE}test_a_tokens_digest_is_what_sha256sum_says",
        "idpass-server dev-certs": TLS,
        "idpass-server serve": TLS,
        "idpass --address": TLS,
    },
    "upgrading.md": {
        "idpass-server migrate": f"{HERE}test_operating_from_the_start_to_a_restored_backup",
    },
    "webhooks.md": {
        "idpass-server webhook-key": "webhooks/test_key.py::test_a_key_is_made_for_its_owner_alone",
    },
    "postgresql.md": {
        "createdb": f"{HERE}test_postgresql_from_createdb_to_workers",
        "idpass-server serve": f"{HERE}test_postgresql_from_createdb_to_workers",
        "idpass-server copy": f"{HERE}test_a_sqlite_file_is_copied_to_postgresql",
    },
    "deployment.md": {
        "podman build": "not run: its instructions are, in prove/test_packages.py",
        "podman run": "not run: operations/test_deployment.py runs the image's commands",
        "useradd": "not run: it makes a user and writes to /opt",
        "runuser": "not run: operations/test_deployment.py runs the unit's command",
        "kubectl apply": "not run: operations/test_deployment.py runs the containers' commands",
        "kubectl create": "not run: likewise",
    },
    "http.md": {
        "idpass-server serve --http 127.0.0.1:8080\n": f"{HERE}test_http_beside_grpc_and_alone",
        "idpass-server gateway": f"{HERE}test_http_beside_grpc_and_alone",
        "idpass-server serve --http 127.0.0.1:8080 --sandbox": (
            f"{HERE}test_make_serve_serves_the_sandbox"
        ),
        "python -m idpass_server.gateway.envoy": "gateway/test_envoy.py::test_envoy_cancels",
        "curl localhost:8081": "gateway/test_envoy.py::test_envoy_cancels",
    },
    "monitoring.md": {
        "journalctl": "not run: there is no journal; operations/test_call_lines.py goes that way",
        "export OTEL": (
            "operations/test_traces.py::test_the_standard_variables_lead_the_spans_to_a_collector"
        ),
    },
    "support.md": {
        "$ idpass-server account list": SUPPORT,
        "$ idpass-server admin-log": SUPPORT,
        "$ idpass-server pass show": SUPPORT,
        "$ idpass-server pass find": SUPPORT,
        "$ idpass-server report refunds": SUPPORT,
        "eval": "operations/test_support.py::test_the_documented_lines_complete_in_bash",
    },
    "languages.md": {
        "python -m idpass.v1.export": "client/test_protos.py::test_buf_builds_an_exported_folder",
        "protoc -I protos --go_out": "prove/test_languages.py::test_go",
        "mkdir -p generated": "prove/test_languages.py::test_java",
    },
    "proof.md": {
        "make test": "not run: each takes minutes, and is what runs this",
        "PROVE_MINUTES=60": "not run: it takes as long as it says",
        "PROVE_MINUTES=120": "not run: it takes an hour; make prove runs a part of it",
        "PROVE_MINUTES=500": "not run: it takes hours; make prove runs a part of it",
    },
    "CONTRIBUTING.md": {
        "make setup": "not run: each takes minutes; that the targets exist is tested",
    },
}


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    for page, text in PAGES.items():
        found = blocks("(?:sh|console)", text)
        known = HOW.get(page, {})
        for beginning, how in known.items():
            assert sum(block.startswith(beginning) for block in found) == 1, (page, beginning)
            assert how.startswith("not run: ") or is_a_test(how), how
        assert len(found) == len(known), page


def commands(group: click.Command) -> Iterator[click.Command]:
    """A command and all below it."""
    yield group
    for each in subcommands(group).values():
        yield from commands(each)


def flags(group: click.Command) -> set[str]:
    named = (each for each in group.params if isinstance(each, click.Option))
    return {flag for each in named for flag in (*each.opts, *each.secondary_opts)} | {"--help"}


PROGRAMS: Final[dict[str, click.Command]] = {"idpass-server": main, "idpass": client_cli.main}
EVERY_FLAG: Final = {
    flag for program in PROGRAMS.values() for each in commands(program) for flag in flags(each)
}


def test_commands_in_the_text_exist_with_their_options() -> None:
    checked = 0
    for page, text in PAGES.items():
        for span in spans(text):
            first, *rest = span.removeprefix(".venv/bin/").split()
            if first in PROGRAMS:
                found: Any = PROGRAMS[first]
            elif first.startswith("--") or first in subcommands(main):
                found, rest = main, [first, *rest]
            else:
                continue
            while rest and rest[0] in subcommands(found):
                found = subcommands(found)[rest.pop(0)]
            known = EVERY_FLAG if found is main else flags(found)
            named = {each.partition("=")[0] for each in rest if each.startswith("--")}
            assert named <= known, f"{page}: {span}"
            checked += 1
    assert checked > 50


def test_make_serve_serves_the_sandbox(tmp_path: Path) -> None:
    make = ["make", "--no-print-directory", "--dry-run", "serve"]
    made = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    recipe = made.stdout.splitlines()[-1].replace(".venv/bin/", "")
    assert words(recipe) == words(command("http.md", "idpass-server serve --http 127.0.0.1:8080 -"))
    with process(tmp_path / "none.db", *Shell(tmp_path).options(recipe)) as server:
        page = server.wait_for("sandbox")["open_in_a_browser"]
        assert "<title>" in httpx.get(page, trust_env=False).text
        server.signal()
        assert server.wait() == 0


def test_operating_from_the_start_to_a_restored_backup(tmp_path: Path) -> None:
    page = "operating.md"
    for name in ("lib", "etc"):
        (tmp_path / name).mkdir()
    places = {
        "/var/lib/idpass": str(tmp_path / "lib"),
        "/etc/idpass": str(tmp_path / "etc"),
        "/var/backups": str(tmp_path),
    }
    url = f"sqlite:///{tmp_path}/lib/idpass.db"
    shell = Shell(tmp_path, places, {"IDPASS_DB": url})
    shell.run(command(page, "export IDPASS_DB"))
    callers = blocks("toml", PAGES["security.md"])[0]
    (tmp_path / "etc/callers.toml").write_text(callers)
    shell.run(command(page, "idpass-server account"))
    with process(url, *shell.options(command(page, "idpass-server serve"))) as server:
        shell.places |= {
            "127.0.0.1:8081": server.wait_for("probe")["listen"],
            "127.0.0.1:50051": server.address,
        }
        asked = shell.run(command(page, "curl --fail")).stdout
        assert asked.startswith("[+] ")
        assert asked.endswith("serving\n")
        shell.run(command("keeping.md", "idpass-server backup"))
    shell.run(command("keeping.md", "idpass-server restore"))
    assert "up to date" in shell.run(command("upgrading.md", "idpass-server migrate")).stdout
    assert "all is well: 2 accounts" in shell.run(command(page, "idpass-server audit")).stdout


def test_an_accounts_data_are_erased_purged_and_exported(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    make_accounts(db, "acme")
    with closing(open_store(url_of(db), exclusive=False)) as store:
        ids = [new_uuid() for _ in range(3)]
        then_us = time.time_ns() // 1_000 - 500 * DAY_US
        for pass_id in ids:
            zoe = Register("acme", "t", new_uuid(), None, pass_id, applicant_reference="zoe-77")
            store.commit([zoe], then_us)
        store.commit([Cancel("acme", "t", new_uuid(), None, each) for each in ids[1:]], then_us)
        store.commit([Register("acme", "t", new_uuid(), None, new_uuid())], then_us + 500 * DAY_US)
        places = {
            "--account acme": "--account acme --yes",
            "01932c07-0000-7000-8000-000000000000": ids[0],
        }
        shell = Shell(tmp_path, places, {"IDPASS_DB": url_of(db)})
        erased = shell.run(command("keeping.md", "idpass-server erase")).stdout
        assert "3 passes of acme erased\nnothing to erase" in erased
        purged = shell.run(command("keeping.md", "idpass-server purge")).stdout
        assert "2 passes of acme that ended before" in purged
        del shell.places["--account acme"]
        shell.run(command("keeping.md", "idpass-server export"))
        last = (tmp_path / "acme.jsonl").read_text().splitlines()[-1]
        assert last.startswith('{"type":"end","accounts":1,"id_passes":2,')
    assert "bytes before" in shell.run(command("keeping.md", "idpass-server compact")).stdout


def test_a_tokens_digest_is_what_sha256sum_says(tmp_path: Path) -> None:
    made = Shell(tmp_path).run(command("security.md", "idpass-server token"))
    shell = Shell(tmp_path, env={"TOKEN": made.stdout.strip()})
    digest = shell.run(command("security.md", "printf")).stdout.split()[0]
    assert made.stderr == f'token_sha256 = "{digest}"\n'


@pytest.fixture
def postgres_shell(tmp_path: Path, postgres: Postgres) -> Shell:
    """A shell in which PostgreSQL's own programs find the tests' server."""
    env = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "postgres"}
    shell = Shell(tmp_path, {"//localhost/": f"//localhost:{postgres.port}/"}, env)
    shell.env["PATH"] += f":{programs()}"
    return shell


def test_postgresql_from_createdb_to_workers(postgres: Postgres, postgres_shell: Shell) -> None:
    shell = postgres_shell
    shell.run(command("postgresql.md", "createdb"))
    try:
        options = shell.options(command("postgresql.md", "idpass-server serve"))
        with process(postgres.url("idpass"), *options, env={"PGUSER": "postgres"}) as server:
            assert server.wait_for("serving")["workers"] == 2
            assert server.account().id == "demo"
            server.signal()
            assert server.wait() == 0
    finally:
        postgres.drop_database("idpass")


def test_a_sqlite_file_is_copied_to_postgresql(
    tmp_path: Path,
    postgres_shell: Shell,
    postgres_databases: Callable[[], AbstractContextManager[str]],
) -> None:
    cli("init", cwd=tmp_path)
    with postgres_databases() as url:
        postgres_shell.places = {"postgresql://localhost/idpass": url}
        copied = postgres_shell.run(command("postgresql.md", "idpass-server copy"))
        assert "verified" in copied.stdout


def test_http_beside_grpc_and_alone(tmp_path: Path) -> None:
    served = command("http.md", "idpass-server serve --http 127.0.0.1:8080\n")
    with process(tmp_path / "idpass.db", *Shell(tmp_path).options(served)) as server:
        check_account(server, server.wait_for("gateway")["http"])
        shell = Shell(
            tmp_path, {"127.0.0.1:50051": server.address, "127.0.0.1:8080": "127.0.0.1:0"}
        )
        with shell.running(command("http.md", "idpass-server gateway"), "gateway") as line:
            check_account(server, line["http"])


def check_account(server: Process, http: str) -> None:
    """The same answer comes over HTTP and over gRPC."""
    answer = httpx.get(f"http://{http}/idpass/account", trust_env=False)
    assert answer.json()["id"] == server.account().id
