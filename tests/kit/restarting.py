"""A rolling restart under load."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from idpass import IdPassClient
from kit.support import STATUS, problems, process


def restart_under_load(db: Path | str, *options: str, restarts: int) -> None:
    """A rolling restart, as often as asked for, while clients go on as if nothing happened."""
    over = threading.Event()
    cancelled: list[str] = []

    def cancel_on_and_on(address: str) -> None:
        with IdPassClient(address, timeout=30) as client:
            while not over.is_set():
                cancelled.append(client.cancel(client.register().id_pass.id).id)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(process(db, *options))
        pool = stack.enter_context(ThreadPoolExecutor(4))
        stack.callback(over.set)
        callers = [pool.submit(cancel_on_and_on, server.address) for _ in range(4)]
        for _ in range(restarts):
            done = len(cancelled)
            while len(cancelled) < done + 50 and not any(each.done() for each in callers):
                over.wait(0.01)
            server.signal()
            assert server.wait() == 0
            server = stack.enter_context(process(db, *options, "--listen", server.address))
        over.set()
        for each in callers:
            each.result(60)
        for pass_id in cancelled:
            assert server.get(pass_id).status == STATUS["cancelled"]
    assert problems(db) == []
