"""Every example in the package's README is run."""

import asyncio
import base64
import contextlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from idpass import AlreadyCancelled, IdPassClient, _cli, cli
from idpass.webhooks import sign
from idpass_server.testing import RunningServer, running_server

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
TEXT = README.read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("idpass ")
]


SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(
    server: RunningServer, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ca", "cert", "key"):
        Path(f"{name}.pem").write_text("")
    names: dict[str, Any] = {
        "pass_id": server.put_pass(),
        "secret": SECRET,
        "__name__": "example",
    }
    for earlier in EXAMPLES[:number]:  # imports are not said twice
        for line in earlier.splitlines():
            if line.startswith(("from ", "import ")):
                exec(line, names)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(EXAMPLES[number].replace("localhost:50051", server.address), names)
        for name, value in list(names.items()):
            if name.startswith("test_"):
                with contextlib.ExitStack() as stack:
                    wanted = inspect.signature(value).parameters
                    value(*(stack.enter_context(running_server()) for _ in wanted))
    for expected in re.findall(r"print\(.*\)  # (.*)", EXAMPLES[number]):
        assert expected in shown.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(server: RunningServer, command: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "idpass.cli", *shlex.split(command)[1:]],
        env=os.environ | {"IDPASS_ADDRESS": server.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_every_command_and_exit_code_is_told() -> None:
    for name in cli.main.commands:
        assert f"idpass {name}" in TEXT or f"`{name}`" in TEXT
    codes = {value for name, value in vars(_cli).items() if name.startswith("EXIT_")}
    told = set(map(int, re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)))
    assert told == codes | {0, 2}  # 2 is click's


def test_the_default_deadline_is_the_one_that_is_told() -> None:

    assert inspect.signature(IdPassClient).parameters["timeout"].default == 5.0
    assert "5 seconds in all" in TEXT


def example_with(text: str, server: RunningServer) -> dict[str, Any]:
    """The names that the example with this text defines."""
    (found,) = [example for example in EXAMPLES if text in example]
    names: dict[str, Any] = {"__name__": "example"}
    exec(found.replace("localhost:50051", server.address), names)
    return names


def test_a_request_that_is_sent_again_gets_the_first_answer(server: RunningServer) -> None:
    names = example_with("idempotency_key", server)
    pass_id = server.put_pass("opened")

    async def post(key: str) -> Any:
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            url = f"/applications/7/abandon?pass_id={pass_id}"
            return (await http.post(url, headers={"Idempotency-Key": key})).json()

    async def use() -> list[Any]:
        answers = [await post("key-1"), await post("key-1")]
        with pytest.raises(AlreadyCancelled):
            await post("key-2")
        await names["client"].close()
        return answers

    assert asyncio.run(use()) == [
        {"refunded": True, "replayed": False},
        {"refunded": True, "replayed": True},
    ]


def test_a_task_that_is_run_again_gets_the_first_answer(server: RunningServer) -> None:
    names = example_with("task.request.id", server)
    task = SimpleNamespace(request=SimpleNamespace(id="3b1e5d6e-task"))
    pass_id = server.put_pass("opened")
    assert [names["cancel_abandoned"](task, pass_id) for _ in range(2)] == [True, True]


def receivers() -> list[str]:
    return [example for example in EXAMPLES if "verify(" in example]


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    now = int(time.time())
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign(body, "msg_1", now, secret),
    }


EVENT = b'{"type":"webhook.test","timestamp":"2026-11-25T09:30:00Z","data":{"history":"h"}}'
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()


def test_the_receiver_with_a_framework_takes_what_is_signed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {"secret": SECRET}
    exec(receivers()[0], names)

    async def post(headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            return await http.post("/id-pass", content=EVENT, headers=headers)

    for _ in range(2):
        assert asyncio.run(post(signed(EVENT))).status_code == 200
    refused = asyncio.run(post(signed(EVENT, OTHER)))
    assert refused.status_code == 400
    assert "no signature fits" in refused.text
    assert capsys.readouterr().out == "webhook.test None\n"


def test_the_receiver_without_a_framework_takes_what_is_signed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {"secret": SECRET}
    exec(receivers()[1], names)
    with HTTPServer(("127.0.0.1", 0), names["Receiver"]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = "http://127.0.0.1:{1}/".format(*server.server_address)
        with httpx.Client(trust_env=False) as http:
            assert http.post(url, content=EVENT, headers=signed(EVENT)).status_code == 204
            assert http.post(url, content=EVENT, headers=signed(EVENT, OTHER)).status_code == 400
        server.shutdown()
    assert capsys.readouterr().out == "webhook.test msg_1\n"
