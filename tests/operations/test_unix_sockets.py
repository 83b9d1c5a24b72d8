"""`--listen unix:PATH`: for this user alone, and never in place of anything in use."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from idpass import IdPassClient
from idpass_server.config import Settings
from idpass_server.failures import BadSetting
from idpass_server.hosting.unix_sockets import MAX_PATH_BYTES
from kit.certificates import Authority
from kit.http import listed
from kit.support import Process, cli, process


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a short name: pytest's own may be too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="idpass-test-") as made:
        yield Path(made)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "grpc.sock"


def serve(path: Path, *options: str) -> Process:
    return Process(path.parent / "idpass.db", "--listen", f"unix:{path}", *options)


@pytest.mark.parametrize("scheme", ["unix:", "unix://"])
def test_everything_goes_through_a_unix_socket(path: Path, scheme: str) -> None:
    options = ("--listen", f"{scheme}{path}", "--http", "127.0.0.1:0")
    with process(path.parent / "idpass.db", *options) as server:
        assert server.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with IdPassClient(server.address) as client:
            cancelled = client.cancel(client.register().id_pass.id)
            assert cancelled.fee_refunded
        command = Path(sys.executable).with_name("idpass")
        told = subprocess.run(
            [command, "--address", server.address, "get", cancelled.id],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "cancelled" in told.stdout
        assert cli("health", "--address", server.address).returncode == 0
        assert cli("health", env={"IDPASS_LISTEN": server.address}).returncode == 0
        http = server.wait_for("gateway")["http"]
        assert "cancelled" in listed(http)
        server.signal()
        assert server.wait() == 0
    assert sorted(each.name for each in path.parent.iterdir() if "sock" in each.name) == []
    assert not list(path.parent.glob(".*"))


def test_a_socket_in_use_is_left_to_the_server_that_has_it(path: Path) -> None:
    first = serve(path)
    try:
        done = cli("serve", "--listen", f"unix:{path}", "--db", f"sqlite:///{path.parent}/other.db")
        assert done.returncode == 1
        assert f"unix:{path} cannot be listened on: another process does" in done.stderr
        first.register()
    finally:
        first.kill()


def test_a_socket_that_was_left_behind_is_replaced(path: Path) -> None:
    first = serve(path)
    first.kill()
    assert path.is_socket()
    second = serve(path)
    second.register()
    second.kill()


def test_what_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("a file")
    done = cli("serve", "--listen", f"unix:{path}", "--db", f"sqlite:///{path.parent}/idpass.db")
    assert done.returncode == 1
    assert f"{path} is there and is not a socket" in done.stderr
    assert path.read_text() == "a file"
    path.unlink()
    path.symlink_to("elsewhere")
    done = cli("serve", "--listen", f"unix:{path}", "--db", f"sqlite:///{path.parent}/idpass.db")
    assert done.returncode == 1
    assert path.is_symlink()


def test_a_socket_that_has_another_owner_by_now_outlives_the_server(path: Path) -> None:
    server = serve(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.signal()
        assert server.wait() == 0
        assert path.is_socket()
    server.kill()


def test_a_path_that_is_too_long_says_so(folder: Path) -> None:
    longest = folder / ("x" * (MAX_PATH_BYTES - len(os.fsencode(folder)) - 1))
    server = serve(longest)
    server.register()
    server.kill()
    for listen, said in [
        (f"{longest}y", f"is too long for a Unix socket ({MAX_PATH_BYTES + 1} bytes; 107"),
        (folder / "missing" / "grpc.sock", "does its folder exist"),
    ]:
        done = cli("serve", "--listen", f"unix:{listen}", "--db", f"sqlite:///{folder}/idpass.db")
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_folder_for_temporary_files_with_too_long_a_name_says_so(tmp_path: Path) -> None:
    """HTTP reaches a service that speaks TLS through a socket there."""
    temporary = tmp_path / ("x" * 100)
    temporary.mkdir()
    issued = Authority(tmp_path / "authority").issue("localhost")
    done = cli(
        *("serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"),
        *("--tls-cert", str(issued.cert), "--tls-key", str(issued.key)),
        *("--db", f"sqlite:///{tmp_path}/idpass.db"),
        env={"TMPDIR": str(temporary)},
    )
    assert done.returncode == 1
    assert "is too long for a Unix socket" in done.stderr
    assert "set TMPDIR to a folder with a shorter name" in done.stderr


@pytest.mark.parametrize(
    ("listen", "options", "said"),
    [
        ("unix:", {}, "is not unix:PATH"),
        ("unix:/run/", {}, "is not unix:PATH"),
        ("unix:x", {"workers": 2, "db": "postgresql:///x"}, "cannot share the Unix socket"),
    ],
)
def test_what_is_no_path_for_the_service_is_refused(
    listen: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(BadSetting, match=said):
        Settings(listen=listen, **options)  # type: ignore[arg-type]


def test_a_connection_to_a_socket_counts_its_health_streams_with_the_others(path: Path) -> None:
    """gRPC tells nothing of who connects to a Unix socket, so there is no limit for each."""
    server = serve(path)
    try:
        with grpc.insecure_channel(server.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=30) for _ in range(20)]
            for watch in watches:
                assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            for watch in watches:
                watch.cancel()
    finally:
        server.kill()
