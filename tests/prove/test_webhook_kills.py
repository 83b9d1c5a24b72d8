"""Promise: a server killed at any moment loses no webhook event and repeats one only under its id.

Means: events are made while `kill -9` ends the server again and again, most often between a POST
and the save of it; then the receiver must have had every event, each under one id, in order for
each pass. Control: a receiver that would drop an event is told from one that had them all.

Blind spots: the disk keeps what was written (see test_postgres_durability and store/test_durability
for power cuts); one receiver, which always answers.
"""

import random
import time
from collections import defaultdict
from pathlib import Path

from kit.hooked import ALLOWED, Hooked, key_file
from kit.proving import times
from kit.receiver import Receiver, Request
from kit.support import Process, problems

CYCLES = times(3, 20)


def faults(requests: list[Request], events: int) -> list[str]:
    """What is wrong with what a receiver got."""
    found = []
    ids: dict[int, set[str]] = defaultdict(set)
    newest: dict[str, int] = defaultdict(int)
    for request in requests:
        first_time = request.sequence not in ids
        ids[request.sequence].add(request.id)
        if first_time and request.sequence < newest[request.pass_id]:
            found.append(f"{request.sequence} came after {newest[request.pass_id]}")
        newest[request.pass_id] = max(newest[request.pass_id], request.sequence)
    found += [f"{each} never came" for each in range(1, events + 1) if each not in ids]
    found += [f"{each} came as {len(names)}" for each, names in ids.items() if len(names) > 1]
    return found


def test_nothing_is_lost_however_often_the_server_is_killed(tmp_path: Path) -> None:
    with Receiver() as receiver:
        _kill(tmp_path, receiver)


def _kill(tmp_path: Path, receiver: Receiver) -> None:
    db = tmp_path / "idpass.db"
    first = Hooked(db, tmp_path)
    first.hook(receiver.url)
    first.stop()
    options = ("--webhook-key", str(key_file(tmp_path)), "--webhook-allow", ALLOWED)
    events = 0
    randomly = random.Random(15)
    for _ in range(CYCLES):
        server = Process(db, *options)
        try:
            for _ in range(randomly.randint(1, 5)):
                server.cancel(server.pass_in("opened"))
                events += 3
            time.sleep(randomly.random() * 0.15)
        finally:
            server.kill()
    last = Hooked(db, tmp_path, drain_s=1.0)
    try:
        deadline = time.monotonic() + 60
        while faults(receiver.requests, events) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert faults(list(receiver.requests), events) == []
        lacking = [each for each in receiver.requests if each.sequence != 2]
        assert faults(lacking, events) == ["2 never came"]
    finally:
        last.stop()
    assert problems(db) == []
