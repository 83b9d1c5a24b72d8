"""The README says what is: its commands run, its tables and its diagram are complete."""

import base64
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2

import option_table
from idpass.v1 import error_reason_pb2
from idpass_server import callers, domain, errors
from idpass_server.records import Status
from support import BUF, Service, cli
from test_access import NEEDS
from test_errors import ROWS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shape(value: Any) -> Any:
    """JSON with what differs from run to run put away."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", str(value))
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)


def grpcurl(command: str, service: Service, pass_id: str) -> subprocess.CompletedProcess[str]:
    """Runs a grpcurl command of the README by its installable twin, against a test's server."""
    if BUF is None:
        pytest.skip("buf is not installed here")
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["grpcurl", "-plaintext", "-d"]
    data, address, method = words[3:]
    assert address == "localhost:50051"
    body = json.loads(data)
    if "id" in body:
        body["id"] = pass_id
    return subprocess.run(
        [
            *(BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc"),
            *("-d", json.dumps(body), f"http://{service.address}/{method}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_grpcurl_session_runs_as_shown(service: Service) -> None:
    register, cancel, again = [block for block in blocks("sh") if block.startswith("grpcurl")]
    shown_register, shown_cancel = map(json.loads, blocks("json"))
    shown_error = next(block for block in blocks("text") if block.startswith("ERROR"))

    registered = json.loads(grpcurl(register, service, "").stdout)
    assert shape(registered) == shape(shown_register)
    pass_id = registered["idPass"]["id"]
    assert shape(json.loads(grpcurl(cancel, service, pass_id).stdout)) == shape(shown_cancel)

    error = json.loads(grpcurl(again, service, pass_id).stderr)
    assert "Code: FailedPrecondition" in shown_error
    assert f"Message: {shape(error['message'])}\n" in shape(shown_error)
    details = re.split(r"^  \d\)\t", shown_error, flags=re.MULTILINE)[1:]
    for detail, shown in zip(error["details"], map(json.loads, details), strict=True):
        name = shown.pop("@type").removeprefix("type.googleapis.com/")
        assert detail["type"] == name
        message = getattr(error_details_pb2, name.rpartition(".")[2])()
        message.ParseFromString(base64.b64decode(detail["value"] + "=="))
        assert shape(MessageToDict(message)) == shape(shown)


def test_the_python_example_runs(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    pass_id = service.register().id_pass.id
    code = example.replace("localhost:50051", service.address)
    exec(compile(code, "README.md", "exec"), {"pass_id": pass_id})
    assert capsys.readouterr().out.startswith("True ")


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
    listed = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", README, re.MULTILINE))
    assert listed == {reason: code for _, (code, _, reason), _, _ in ROWS}
    names = {f"ERROR_REASON_{reason}" for reason in ("UNSPECIFIED", *listed)}
    assert names == set(error_reason_pb2.ErrorReason.keys())
    codes = {code for code, _ in errors.TABLE.values()}
    assert codes == {grpc.StatusCode[code] for code in listed.values()}


def test_the_options_are_listed_as_they_are_declared() -> None:
    assert option_table.TABLE.findall(README) == [option_table.table()], "run: make options"


def test_the_callers_files_are_good_ones(tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    for example, total in zip(blocks("toml"), (2, 1), strict=True):
        file.write_text(example)
        assert callers.read(file, lambda account: account == "acme").total == total


def test_every_permission_is_listed_with_its_methods() -> None:
    listed = re.findall(r"^\| `([a-z]+)` \| (\w+IdPass.*|WatchIdPasses) \|$", README, re.MULTILINE)
    methods = {
        method: permission for permission, row in listed for method in re.findall(r"[A-Z]\w+", row)
    }
    assert methods == NEEDS


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"make ([a-z]+)\b`", README)) | set(
        re.findall(r"^\$? ?make (\w+)$", README, re.MULTILINE)
    )
    assert named
    assert named <= targets


def test_make_lists_every_target() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE))


def test_the_account_commands_work_as_written(tmp_path: Path) -> None:
    commands = re.findall(
        r"`idpass-server (account create [^`]+)`, `(account show \w+)`,\s+"
        r"`(account set [^`]+)`",
        README,
    )[0]
    for command in commands:
        done = cli(*shlex.split(command), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "0 of 200 in use" in done.stdout
