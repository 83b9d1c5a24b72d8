"""What callers test with: the real server in their own process."""

import asyncio
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest

from idpass import (
    AsyncIdPassClient,
    Expired,
    IdPassClient,
    Money,
    NoFreeSlot,
    Status,
    Unavailable,
)
from idpass_server.rules import records
from idpass_server.testing import running_server


def test_a_pass_can_be_put_into_every_status() -> None:
    with running_server() as server, IdPassClient(server.address) as client:
        for status in Status:
            pass_id = server.put_pass(str(status), applicant_reference="a", link_validity_days=3)
            id_pass = client.get(pass_id)
            assert id_pass.status is status
            assert id_pass.applicant_reference == "a"
            assert id_pass.expire_time - id_pass.create_time == timedelta(days=3)
        with pytest.raises(ValueError, match="gone"):
            server.put_pass("gone")


def test_the_clock_can_be_moved() -> None:
    with running_server() as server, IdPassClient(server.address) as client:
        pass_id = server.put_pass("opened")
        server.move_clock(days=6, hours=23)
        assert client.get(pass_id).status is Status.OPENED
        (idle,) = client.list(idle_before=client.get(server.put_pass()).create_time)
        assert idle.id == pass_id
        server.move_clock(seconds=3_601)
        assert client.get(pass_id).status is Status.EXPIRED
        with pytest.raises(Expired):
            client.cancel(pass_id)
        with pytest.raises(ValueError, match="backwards"):
            server.move_clock(seconds=-1)


def test_slots_and_the_fee_can_be_set() -> None:
    with (
        running_server(slot_limit=1, fee=records.Money("EUR", 1_250_000)) as server,
        IdPassClient(server.address) as client,
    ):
        assert str(client.register().id_pass.fee) == "EUR 1.25"
        with pytest.raises(NoFreeSlot):
            client.register()
        assert isinstance(client.account().fee, Money)


def test_servers_know_nothing_of_each_other_and_are_gone_in_the_end() -> None:
    with running_server() as one, running_server() as two:
        one.put_pass()
        with IdPassClient(two.address) as client:
            assert client.account().last_sequence == 0
    with IdPassClient(one.address, timeout=0.2) as client, pytest.raises(Unavailable):
        client.account()


async def test_it_serves_the_event_loop_of_a_test() -> None:
    with running_server() as server:
        pass_id = await asyncio.to_thread(server.put_pass)
        async with AsyncIdPassClient(server.address) as client:
            receipts = await asyncio.gather(
                client.cancel(pass_id, request_id="mine"), client.cancel(pass_id, request_id="mine")
            )
    assert sorted(receipt.replayed for receipt in receipts) == [False, True]


def test_pytest_offers_it_as_a_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_caller.py").write_text(
        textwrap.dedent(
            """
            from idpass import IdPassClient


            def test_one(idpass_server):
                with IdPassClient(idpass_server.address) as client:
                    assert client.cancel(idpass_server.put_pass("opened")).fee_refunded


            def test_another_starts_anew(idpass_server):
                with IdPassClient(idpass_server.address) as client:
                    assert client.account().last_sequence == 0
            """
        )
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "2 passed" in run.stdout, run.stdout
