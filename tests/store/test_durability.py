"""Nothing that was answered is lost: processes killed, connections cut, disks that fail."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest

from idpass.v1 import id_pass_pb2 as pb
from kit.killing import Drill
from kit.paths import KIT
from kit.serving import url_of
from kit.support import STATUS, Calls, Process, Service, cli, problems, process, refused
from kit.witness import Witness

KILLS = 3
CUTS = 60
ANSWERS_BEFORE_KILL = 120


def test_killed_again_and_again_under_load_it_keeps_every_answer(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    drill = Drill(url_of(db), seed=1)
    for _ in range(KILLS):
        with process(db) as server:
            drill.check(server.address)
            drill.load(server.address, partial(_kill, server))
    with process(db) as server:
        drill.check(server.address, everything=True)
    assert not drill.bad


def _kill(server: Process, witness: Witness) -> None:
    witness.wait_for_answers(ANSWERS_BEFORE_KILL)
    server.process.kill()


def test_a_call_retried_after_its_connection_was_cut_gets_the_first_answer(
    service: Service,
) -> None:
    replayed = 0
    for number in range(CUTS):
        pass_id = service.register().id_pass.id
        fields = {"request_id": f"c-{number}", "reason": pb.CANCEL_REASON_ABANDONED}
        channel = grpc.insecure_channel(
            service.address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        grpc.channel_ready_future(channel).result(10)
        cut = threading.Timer(number % 15 / 5_000, channel.close)
        cut.start()
        try:
            first = Calls(channel).cancel(pass_id, **fields)
        except (grpc.RpcError, ValueError):
            first = None
        cut.join()
        again = service.cancel(pass_id, **fields)
        replayed += again.replayed
        assert again.fee_refunded
        assert first is None or (again.replayed and again.reference == first.reference)
    assert replayed > 0
    assert service.account().fees_refunded.units == CUTS * 9 // 2


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system that is soon full."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_and_recovers_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1_000) as disk, process(disk / "idpass.db") as server:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 400_000)
        kept = {}
        for number in range(5_000):
            try:
                request_id = f"r-{number}"
                answer = server.register(request_id=request_id, applicant_reference="x" * 128)
                kept[request_id] = answer.id_pass.id
            except grpc.RpcError as caught:
                failed, error = request_id, caught
                break
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        told = refused(lambda: server.register(request_id=failed, applicant_reference="x" * 128))
        assert told.reason == "STORE_UNAVAILABLE"
        assert told.metadata == {"outcome": "not_committed"}
        assert "disk is full" in told.message
        assert server.get(kept["r-0"]).status == STATUS["new"]
        ballast.unlink()
        assert not server.register(request_id=failed, applicant_reference="x" * 128).replayed
        for request_id, pass_id in kept.items():
            again = server.register(request_id=request_id, applicant_reference="x" * 128)
            assert again.replayed
            assert again.id_pass.id == pass_id
        server.signal()
        assert server.wait() == 0
        assert problems(disk / "idpass.db") == []


def test_starting_on_a_full_disk_is_said_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 40) as disk:
        (disk / "ballast").write_bytes(b"x" * 36_000)
        done = cli("serve", "--listen", "127.0.0.1:0", "--db", f"sqlite:///{disk / 'idpass.db'}")
    assert done.returncode == 1
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def failing_disk(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """The environment of a process whose disk fails while a file exists, and that file."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is needed to make a disk fail")
    library, trigger = tmp_path / "failing_disk.so", tmp_path / "fail"
    source = KIT / "failing_disk.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "FAILING_DISK": str(trigger)}, trigger


def test_an_io_error_at_commit_is_an_unknown_outcome_and_the_process_goes_down(
    tmp_path: Path, failing_disk: tuple[dict[str, str], Path]
) -> None:
    environment, trigger = failing_disk
    db = tmp_path / "idpass.db"
    with process(db, env=environment) as server:
        pass_id = server.register().id_pass.id
        trigger.touch()
        error = refused(lambda: server.cancel(pass_id, request_id="c"))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert error.metadata == {"outcome": "unknown"}
        assert "request_id" in error.message
        assert server.wait() == 74
    trigger.unlink()
    with process(db) as server:
        answer = server.cancel(pass_id, request_id="c")
        assert answer.fee_refunded
        assert server.account().fees_refunded.units == 4
    assert problems(db) == []


def some_database(db: Path) -> list[str]:
    with process(db) as server:
        ids = [server.register(applicant_reference="x" * 100).id_pass.id for _ in range(300)]
        server.signal()
        server.wait()
    return ids


@pytest.mark.parametrize("size", [0.5, pytest.param(0.9, marks=pytest.mark.long)])
def test_a_truncated_file_is_not_served(tmp_path: Path, size: float) -> None:
    db = tmp_path / "idpass.db"
    some_database(db)
    data = db.read_bytes()
    db.write_bytes(data[: int(len(data) * size)])
    for command in (["serve", "--listen", "127.0.0.1:0"], ["audit"]):
        done = cli(*command, "--db", f"sqlite:///{db}")
        assert done.returncode == 1
        assert "damaged" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database_is_not_served_nor_changed(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    db.write_bytes(b"These are my holiday notes. " * 500)
    done = cli("serve", "--listen", "127.0.0.1:0", "--db", f"sqlite:///{db}")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "no SQLite database" in done.stderr
    assert db.read_bytes().startswith(b"These are my holiday notes.")


def test_a_page_damaged_while_it_serves_takes_the_server_down(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    ids = some_database(db)
    data = bytearray(db.read_bytes())
    # Every page of the passes' table but the first pages, which hold the schema.
    for page in range(12, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    with process(db) as server:
        with db.open("r+b") as file:
            file.write(data)
        error = None
        for pass_id in ids:
            try:
                server.cancel(pass_id)
            except grpc.RpcError as caught:
                error = caught
                break
        assert error is not None
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "malformed" not in str(error)
        assert server.wait() == 74
    audited = cli("audit", "--db", f"sqlite:///{db}")
    assert audited.returncode == 1
    assert "damaged" in audited.stderr
