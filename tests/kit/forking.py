"""A process that has loaded idpass-server, and forks one that runs it for each line it reads.

    python -m kit.forking < requests > answers

A request is a line of JSON: `arguments` of idpass-server, Python to run before it as `patch`, and
the path of its `stderr`; answered with its process id. Or `wait` with a process id: answered with
its exit code, negative for a signal's number. At the end all that still run are killed.

Starting so takes 30 ms of CPU time instead of 500, as nothing is imported again. Nothing has begun
when it forks: no event loop, no connection, no gRPC server.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
from typing import Any

import idpass_server
from idpass_server.cli import main


def load() -> None:
    """Imports every module that a command may need."""
    for module in pkgutil.walk_packages(idpass_server.__path__, "idpass_server."):
        if not module.name.endswith(("__main__", "pytest_plugin")):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def next_start() -> dict[str, Any] | None:
    """Answers requests. Returns in each process that it forks what that shall run, and None in the
    first one at the end."""
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if pid := request.get("wait"):
            _, status = os.waitpid(pid, 0)
            running.discard(pid)
            answer = os.waitstatus_to_exitcode(status)
        else:
            log = os.open(request["stderr"], os.O_WRONLY)
            answer = os.fork()
            if not answer:
                return dict(request, log=log)
            os.close(log)
            running.add(answer)
        print(answer, flush=True)
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return None


def become(start: dict[str, Any]) -> None:
    """Runs idpass-server."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, to in ((nothing, 0), (nothing, 1), (start["log"], 2)):
        os.dup2(descriptor, to)
    os.close(nothing)
    os.close(start["log"])
    exec(start["patch"], {"__name__": "patch"})
    main(start["arguments"], prog_name="idpass-server")


if __name__ == "__main__":
    load()
    print("ready", flush=True)
    if (start := next_start()) is not None:
        become(start)
