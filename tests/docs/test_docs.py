"""The documents say what is: their commands run, their tables and the diagram are complete."""

import ast
import json
import re
import shlex
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import click
import grpc
import pytest

from idpass.v1 import error_reason_pb2
from idpass_server.api import errors
from idpass_server.cli import base, health
from idpass_server.hosting import callers
from idpass_server.processes import ending
from idpass_server.rules import domain
from idpass_server.rules.records import Status
from kit import option_table
from kit.contract import NEEDS, ROWS
from kit.documents import PAGES, PATHS, blocks, is_a_test, named_tests, rows
from kit.paths import ROOT
from kit.support import Service, cli, grpcurl_path, process


def shape(value: Any) -> Any:
    """JSON with what differs from run to run put away."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", str(value))
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)


def grpcurl(command: str, service: Service, pass_id: str) -> subprocess.CompletedProcess[str]:
    """Runs a grpcurl command of the README against a test's server."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["grpcurl", "-plaintext", "-d"]
    data, address, method = words[3:]
    assert address == "localhost:50051"
    body = json.dumps(json.loads(data) | {"id": pass_id})
    return subprocess.run(
        [grpcurl_path(), "-plaintext", "-d", body, service.address, method],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_grpcurl_session_runs_as_shown(service: Service) -> None:
    (cancel,) = [block for block in blocks("sh") if block.startswith("grpcurl")]
    (shown,) = blocks("json")
    shown_error = next(block for block in blocks("text") if block.startswith("ERROR"))
    pass_id = service.register().id_pass.id
    assert shape(grpcurl(cancel, service, pass_id).stdout) == shape(shown)
    assert shape(grpcurl(cancel, service, pass_id).stderr) == shape(shown_error)


def test_the_curl_session_runs_as_shown(tmp_path: Path) -> None:
    register, cancel = [block for block in blocks("sh") if block.startswith("curl")]
    shown = next(block for block in blocks("text") if block.startswith("{"))
    with process(tmp_path / "idpass.db", "--http", "127.0.0.1:0") as server:
        address = server.wait_for("gateway")["http"]

        def run(command: str) -> str:
            words = shlex.split(command.replace("\\\n", " ").replace("localhost:8080", address))
            done = subprocess.run([*words, "-s"], capture_output=True, text=True, check=True)
            return done.stdout

        pass_id = json.loads(run(register))["id_pass"]["id"]
        cancel = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", pass_id, cancel)
        answer = run(cancel)
        assert json.loads(run(cancel)) == json.loads(answer) | {"replayed": True}
    assert shape(json.loads(answer)) == shape(json.loads(shown))


def test_the_python_example_runs(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    code = example.replace("localhost:50051", service.address)
    exec(compile(code, "README.md", "exec"), {})
    (shown,) = re.findall(r"print\(.*\)  # (.*)", example)
    assert capsys.readouterr().out == f"{shown}\n"


def test_the_demo_prints_what_is_shown() -> None:
    shown = blocks("console")[0].partition("\n")[2]
    printed = cli("demo").stdout

    def without_port(text: str) -> str:
        return re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)

    assert without_port(printed) == without_port(shown)


def diagram() -> str:
    """The state diagram, drawn from the table."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.NEW}"]
    for before, ways in domain.TRANSITIONS.items():
        for after, fee in ways.items():
            label = f": fee {fee}" if after is Status.CANCELLED else ""
            lines.append(f"    {before} --> {after}{label}")
    terminal = sorted(set(Status) - set(domain.TRANSITIONS))
    lines += [f"    {status} --> [*]" for status in terminal]
    return "\n".join(lines) + "\n"


def test_the_diagram_is_drawn_from_the_table() -> None:
    assert blocks("mermaid") == [diagram()]


def test_the_errors_are_all_listed_with_their_codes() -> None:
    listed = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", PAGES["errors.md"], re.MULTILINE))
    assert listed == {reason: code for _, (code, _, reason), _, _ in ROWS}
    names = {f"ERROR_REASON_{reason}" for reason in ("UNSPECIFIED", *listed)}
    assert names == set(error_reason_pb2.ErrorReason.keys())
    codes = {code for code, _ in errors.TABLE.values()}
    assert codes == {grpc.StatusCode[code] for code in listed.values()}


def test_the_options_are_listed_as_they_are_declared() -> None:
    assert option_table.TABLE.findall(PAGES["operating.md"]) == [option_table.table()], (
        "run: make options"
    )


def test_the_callers_files_are_good_ones(tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    for example, total in zip(blocks("toml", PAGES["security.md"]), (2, 1), strict=True):
        file.write_text(example)
        assert callers.read(file, lambda account: account == "acme").total == total


def test_every_permission_is_listed_with_its_methods() -> None:
    listed = re.findall(
        r"^\| `([a-z]+)` \| (\w+IdPass.*|WatchIdPasses|\w+Webhook.*) \|$",
        PAGES["security.md"],
        re.MULTILINE,
    )
    methods = {
        method: permission for permission, row in listed for method in re.findall(r"[A-Z]\w+", row)
    }
    assert methods == NEEDS


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = "\n".join(PAGES.values())
    named = set(re.findall(r"`make ([a-z-]+)`", text)) | set(
        re.findall(r"^(?:\$ )?make ([a-z-]+)\b", text, re.MULTILINE)
    )
    assert named
    assert named <= targets


def anchor_of(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in PATHS:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            target, _, anchor = link.partition("#")
            path = page.parent / target if target else page
            assert path.exists(), f"{page.name}: {link}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
                assert anchor in map(anchor_of, titles), f"{page.name}: {link}"


def test_the_map_leads_to_what_is_looked_for() -> None:
    found = rows(PAGES["architecture.md"], "looking for | open")
    assert len(found) >= 6
    for wanted, places in found:
        text = ""
        for name in re.findall(r"`([^`]+)`", places):
            if "/" in name or name.endswith(".py"):
                files = [top / name for top in (ROOT, ROOT / "server/idpass_server")]
                text = next(file for file in files if file.exists()).read_text()
            else:
                assert re.search(rf"\b{name.rpartition('.')[2]}\b", text), (wanted, name)


def test_make_lists_every_target() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE))


LEVELS: Final = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
"""The level of a line, by the method of the log that writes it."""


def log_events() -> dict[str, set[str]]:
    """The events that the program logs, with their levels."""
    found = defaultdict(set)
    # Those that are logged under a name which is not written where that is done.
    for event in ("over_rate", "overloaded", "log_lines_dropped", "library"):
        found[event].add("warning")
    for event in ("call", "metrics", "probe"):
        found[event].add("info")
    found["library"].add("error")
    for path in (ROOT / "server/idpass_server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr=level),
                    args=[ast.Constant(value=str(event)), *_],
                ) if level in LEVELS:
                    found[event].add(LEVELS[level])
    return found


def listed(title: str) -> set[str]:
    """The names in the first column of a table of the operators' page."""
    cells = [row[0] for row in rows(PAGES["operating.md"], title)]
    names = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) == len(set(names))
    return set(names)


def test_every_event_of_the_log_is_listed_with_its_level() -> None:
    logged = log_events()
    assert listed("event | level") == set(logged)
    for cell, levels, _ in rows(PAGES["operating.md"], "event | level"):
        events = re.findall(r"`(\w+)`", cell)
        assert set(levels.split(", ")) == set().union(*(logged[each] for each in events)), cell


def test_every_exit_code_is_listed() -> None:
    codes = {int(row[0]) for row in rows(PAGES["operating.md"], "code | meaning")}
    assert codes == {
        0,
        1,
        click.UsageError.exit_code,
        health.NOT_SERVING,
        health.UNREACHABLE,
        base.EXIT_OUTPUT,
        ending.EXIT_STORE_BROKEN,
    }


def test_every_promise_of_the_threat_model_names_the_tests_that_hold_it() -> None:
    model = PAGES["security.md"].partition("\n## Threat model")[2].partition("\n## ")[0]
    promises = re.findall(r"^\| ([^|]+) \| (`\w+/test_.*) \|$", model, re.MULTILINE)
    assert len(promises) > 30
    for promise, tests in promises:
        named = named_tests(tests)
        assert len(named) == tests.count("`") / 2, promise
        assert [name for name in named if not is_a_test(name)] == [], promise
    lines = [line for line in model.splitlines() if line.startswith("| ") and "/test_" not in line]
    assert lines.count("| promise | test |") == 6


def test_the_proof_has_every_promise_and_attacks_that_there_are() -> None:
    promises = re.findall(r"^\d+\. \*\*(.+?)\.?\*\*", PAGES["README.md"], re.MULTILINE)
    proof = PAGES["proof.md"]
    headings = re.findall(r"^### \d+\. (.+)$", proof, re.MULTILINE)
    assert len(headings) == 13
    for promise, heading in zip(promises, headings, strict=True):
        assert promise.startswith(heading)
    named = set(re.findall(r"\b\w+/test_\w+\.py", proof))
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
