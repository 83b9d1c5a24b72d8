"""What is logged, and that nobody who is called waits for whoever reads it."""

import contextlib
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from idpass_server import logs
from kit.support import Calls, channel_to, process

MANY = 600
"""Lines of calls that no pipe holds."""


class Unread:
    """A server whose standard error is read until it serves, and then no more."""

    def __init__(self, db: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "idpass_server", "serve", "--db", f"sqlite:///{db}"),
                *("--listen", "127.0.0.1:0", "--rate", "0", *options),
            ],
            stderr=subprocess.PIPE,
        )

    def line(self, event: str) -> dict[str, Any]:
        """The next line with an event."""
        assert self.process.stderr
        while True:
            line: dict[str, Any] = json.loads(self.process.stderr.readline())
            if line["event"] == event:
                return line


@contextlib.contextmanager
def unread(db: Path, *options: str) -> Iterator[Unread]:
    server = Unread(db, *options)
    with server.process:
        try:
            yield server
        finally:
            server.process.kill()


def test_calls_and_the_stop_do_not_wait_for_whoever_reads_the_log(tmp_path: Path) -> None:
    with unread(tmp_path / "idpass.db", "--http", "127.0.0.1:0") as server:
        address = server.line("serving")["listen"]
        http = server.line("gateway")["http"]
        calls = Calls(channel_to(address, None))
        for _ in range(MANY):
            calls.account()
        page = urllib.request.urlopen(f"http://{http}/openapi.json", timeout=30)
        assert page.status == 200
        page.close()
        calls.channel.close()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_the_log_of_a_reader_that_comes_back_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with unread(tmp_path / "idpass.db") as server:
        calls = Calls(channel_to(server.line("serving")["listen"], None))
        for _ in range(MANY):
            calls.account()
        for _ in range(MANY):
            assert server.line("call")["method"] == "GetAccount"
        calls.channel.close()


# -- the writer


def line_of(level: str, event: MutableMapping[str, Any]) -> str:
    return json.dumps({"level": level, **event}) + "\n"


@contextlib.contextmanager
def writing(file: int) -> Iterator[logs._Writer]:
    writer = logs._Writer(file, logs._Folding(), line_of)
    yield writer
    writer.close()


def read_lines(file: int, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Reads until the lines are enough."""
    text = b""
    while True:
        text += os.read(file, 65_536)
        whole = text[: text.rfind(b"\n") + 1]
        lines = [json.loads(line) for line in whole.splitlines()]
        if enough(lines):
            return lines


def test_lines_without_room_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_QUEUED_CHARACTERS", 10_000)
    reader, file = os.pipe()
    with writing(file) as writer:
        for number in range(5_000):  # the pipe holds 64 KiB
            writer.write(line_of("info", {"event": "call", "number": number, "more": "x" * 50}))
            writer.flush()

        def all_told(lines: list[dict[str, Any]]) -> bool:
            calls: int = sum(line["event"] == "call" for line in lines)
            dropped: int = sum(line.get("lines", 0) for line in lines)
            return calls + dropped == 5_000

        lines = read_lines(reader, all_told)
    numbers = [line["number"] for line in lines if line["event"] == "call"]
    assert numbers == sorted(numbers)
    assert len(numbers) < 5_000
    assert {line["level"] for line in lines if line["event"] == "log_lines_dropped"} == {"warning"}
    os.close(reader)
    os.close(file)


def test_what_cannot_be_written_is_told_when_it_can_be_again(tmp_path: Path) -> None:
    full, file = (
        os.open("/dev/full", os.O_WRONLY),
        os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR),
    )
    ours = os.dup(full)
    with writing(ours) as writer:
        for _ in range(3):
            writer.write(line_of("info", {"event": "lost"}))
            writer._write_out()
        os.dup2(file, ours)
        writer.write(line_of("info", {"event": "kept"}))
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [event["event"] for event in events] == ["kept", "log_lines_dropped"]
    assert events[1]["lines"] == 3
    for each in (full, file, ours):
        os.close(each)


def test_pieces_are_whole_lines_that_a_pipe_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, file = os.pipe()
    written: list[bytes] = []
    write = os.write

    def keep(to: int, data: bytes) -> int:
        written.append(data)
        return write(to, data)

    monkeypatch.setattr(os, "write", keep)
    with writing(file) as writer:
        for size in (3_000, 3_000, 10_000, 10, 10):
            writer.write("x" * size + "\n")
    assert all(piece.endswith(b"\n") for piece in written)
    assert all(len(piece) <= 4_096 or piece.count(b"\n") == 1 for piece in written)
    os.close(reader)
    os.close(file)


# -- repetitions


def let_through(folding: logs._Folding, level: str, **event: Any) -> bool:
    try:
        folding(None, level, event)
    except structlog.DropEvent:
        return False
    return True


def test_an_error_that_comes_again_is_told_at_once_and_then_counted() -> None:
    folding = logs._Folding()
    through = [
        let_through(folding, "error", event="store_unavailable", error="full", reference=number)
        for number in range(100)
    ]
    assert through == [True, *[False] * 99]
    ((level, event),) = folding.due(everything=True)
    assert (level, event["event"], event["repeated"]) == ("error", "store_unavailable", 99)
    assert event["reference"] == 99
    assert folding.due(everything=True) == []
    assert let_through(folding, "error", event="store_unavailable", error="full")


def test_what_differs_is_not_taken_for_a_repetition() -> None:
    folding = logs._Folding()
    for number in range(3):
        assert let_through(folding, "error", event="worker_died", worker=number)
    for _ in range(3):
        assert let_through(folding, "info", event="call")


def test_texts_that_differ_each_time_are_folded_as_well() -> None:
    folding = logs._Folding()
    through = [
        let_through(folding, "warning", event="not_answered", error=f"at {number}")
        for number in range(1_000)
    ]
    assert sum(through) == logs.MAX_KINDS + 1
    told = folding.due(everything=True)
    assert sum(through) + sum(event["repeated"] for _, event in told) == 1_000


# -- a process of its own


def run(code: str, *, closed: bool = False, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    """Runs Python with logging set up. Args: closed: whether it begins without standard error."""
    code = f"from idpass_server import logs\nlogs.configure()\n{code}"
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh"] if closed else []
    return subprocess.run(
        [*shell, sys.executable, "-c", code],
        check=True,
        timeout=60,
        **options,
    )


def test_at_the_end_everything_is_written() -> None:
    done = run(
        "import structlog\n"
        "log = structlog.get_logger()\n"
        "for number in range(500): log.error('failed', error='disk full')\n"
        "for number in range(500): log.info('call', number=number)\n",
        stderr=subprocess.PIPE,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["number"] for line in lines if line["event"] == "call"] == list(range(500))
    failed = [line for line in lines if line["event"] == "failed"]
    assert sum(line.get("repeated", 1) for line in failed) == 500
    assert len(failed) < 10


def test_lines_of_libraries_are_lines_like_the_others() -> None:
    done = run("import logging\nlogging.getLogger('x').error('%s', 'oh')", stderr=subprocess.PIPE)
    line = json.loads(done.stderr)
    assert (line["event"], line["level"]) == ("library", "error")
    assert (line["logger"], line["message"]) == ("x", "oh")


def test_a_caller_that_hangs_up_is_no_error_of_a_library() -> None:
    done = run(
        "import logging\n"
        "from grpc._cython.cygrpc import ExecuteBatchError\n"
        "try: raise ExecuteBatchError\n"
        "except ExecuteBatchError: logging.getLogger('grpc').exception('oh')\n",
        stderr=subprocess.PIPE,
    )
    assert done.stderr == b""


def test_where_standard_error_is_closed_no_file_gets_its_number() -> None:
    done = run(
        "import os, structlog\n"
        "structlog.get_logger().info('lost')\n"
        "print(os.readlink('/proc/self/fd/2'), os.open('/dev/zero', os.O_RDONLY) > 2)",
        stdout=subprocess.PIPE,
        closed=True,
    )
    assert done.stdout.split() == [b"/dev/null", b"True"]


def test_a_fault_on_a_terminal_shows_no_values_and_steers_nothing() -> None:
    master, slave = pty.openpty()
    run(
        "import structlog\n"
        "def register(applicant):\n"
        "    try: raise ValueError(chr(27) + ']0;title' + chr(155) + '31m')\n"
        "    except ValueError: structlog.get_logger().exception('fault', text=chr(27) + 'c')\n"
        "register('Ja' + 'ne')\n",
        stderr=slave,
        env=os.environ | {"TERM": "xterm"},
    )
    text = os.read(master, 100_000).decode()
    os.close(master)
    os.close(slave)
    assert "Traceback" in text
    assert "Jane" not in text
    assert r"\x1b]0;title\x9b31m" in text
    assert "\x1bc" not in text


# -- signals


def test_sigusr1_prints_every_threads_stack_and_ends_nothing(tmp_path: Path) -> None:
    with process(tmp_path / "idpass.db") as server:
        server.signal(signal.SIGUSR1)
        server.wait_for_line(lambda line: "asyncio/runners.py" in line.get("text", ""))
        assert server.account().id == "demo"
        server.signal()
        assert server.wait() == 0


@pytest.mark.parametrize("outlives", [False, True])
def test_a_server_ends_with_its_terminal_unless_it_is_to_outlive_it(
    tmp_path: Path, outlives: bool
) -> None:
    master, slave = pty.openpty()

    # As nohup does, or as a shell does, however these tests were started.
    disposition = "SIG_IGN" if outlives else "SIG_DFL"
    taking = (
        "import fcntl, os, signal, sys, termios\n"
        f"fcntl.ioctl({slave}, termios.TIOCSCTTY, 0)\n"
        f"signal.signal(signal.SIGHUP, signal.{disposition})\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    serve = ["-m", "idpass_server", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-c", taking, *serve, "--db", f"sqlite:///{tmp_path / 'idpass.db'}"],
        stderr=subprocess.PIPE,
        pass_fds=[slave],
        start_new_session=True,
        text=True,
    ) as server:
        assert server.stderr
        os.close(slave)
        try:
            lines = map(json.loads, server.stderr)
            address = next(line["listen"] for line in lines if line["event"] == "serving")
            server.send_signal(signal.SIGHUP)  # the terminal is there: files are read again
            calls = Calls(channel_to(address, None))
            assert calls.account().id == "demo"
            os.close(master)
            if outlives:
                assert calls.account().id == "demo"
                server.terminate()
            calls.channel.close()
            assert server.wait(30) == 0
        finally:
            server.kill()


# -- the environment


def test_a_variable_that_is_no_options_is_told_with_the_nearest_that_is(tmp_path: Path) -> None:
    environment = {
        "IDPASS_MAX_CALL": "5",
        "IDPASS_PORT": "tcp://10.0.0.7:50051",
        "IDPASS_PORT_50051_TCP_ADDR": "10.0.0.7",
        "IDPASS_SERVICE_HOST": "10.0.0.7",
        "IDPASS_SERVICE_PORT_GRPC": "50051",
        "IDPASS_HTTP_PORT": "tcp://10.0.0.8:80",
        "IDPASS_TOKEN": "secret",
    }
    with process(tmp_path / "idpass.db", env=environment) as server:
        assert server.account().id == "demo"
    told = [line for line in server.log if line["event"] == "unknown_variable"]
    assert [(line["variable"], line["nearest"]) for line in told] == [
        ("IDPASS_MAX_CALL", "IDPASS_MAX_CALLS")
    ]


def test_no_option_has_a_name_that_kubernetes_gives_to_a_service() -> None:
    from idpass_server.cli.environment import KUBERNETES  # noqa: PLC0415
    from idpass_server.config import OPTIONS  # noqa: PLC0415

    for option in OPTIONS.values():
        assert not KUBERNETES.fullmatch(option.variable)


def test_levels_of_the_standard_library_have_ours() -> None:
    for level in (logging.WARNING, logging.ERROR, logging.CRITICAL):
        assert logging.getLevelName(level).lower() in logs._FOLDED
