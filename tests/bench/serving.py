"""What the servers of the bench have in common: how they say that they serve, and how they end."""

import asyncio
import json
import signal
import sys


def say_serving(port: int) -> None:
    """Says where, in the words of `idpass-server serve`."""
    line = {"event": "serving", "listen": f"127.0.0.1:{port}"}
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()


async def until_told_to_stop() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
