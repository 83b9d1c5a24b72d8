"""pytest, once loaded and then forked for each run: a run costs a second less.

    python -P warm_pytest.py < requests > answers

A request is a line of JSON: pytest's `arguments`, and the path of a `log` for what it says. It is
answered with two lines: the id of the process that runs them, which leads a group of its own, and
its exit code, negative for a signal's number.

Nothing of this repository is loaded before the fork: each run loads it as it is then.
"""

import contextlib
import gc
import importlib
import json
import os
import sys

import pytest

# Whatever takes long to be imported and most tests have.
WANTED = (
    *("_hypothesis_pytestplugin", "anyio.pytest_plugin", "pytest_asyncio.plugin", "pytest_timeout"),
    *("hypothesis.strategies", "hypothesis.internal.conjecture.engine", "xdist.plugin"),
    *("click.testing", "google.rpc.error_details_pb2", "grpc.aio", "httpx", "prometheus_client"),
    *("psycopg", "pysqlite3", "selenium.webdriver", "sqlite_utils", "structlog", "uvicorn"),
    *("aiohttp", "cryptography.x509", "starlette.applications", "uvloop"),
)
AS_LOADED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # plugins before pytest asked


def main() -> None:
    for name in WANTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert not any(name.partition(".")[0] in {"idpass", "idpass_server"} for name in sys.modules)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            run(**request)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # here as well as there: whoever comes first
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(arguments: list[str], log: str) -> None:
    """Runs pytest; does not return."""
    code = 3  # as pytest's own for a fault of its own
    try:
        os.setpgid(0, 0)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = int(pytest.main([*AS_LOADED, *arguments]))
        sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
