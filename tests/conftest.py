import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from selenium import webdriver

from idpass_server import logs
from idpass_server.store.opening import migrate_store
from kit.browser import Page, chromium
from kit.commands import Command, run
from kit.guarded import Guarded, caller
from kit.http import Http, served
from kit.postgres import Postgres
from kit.proving import MINUTES
from kit.secure import Secure
from kit.support import Service, problems

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")
logs.configure_lines("critical")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL, started for the first test that asks for it."""
    with Postgres() as running:
        yield running


_numbers = itertools.count(1)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database, the test's own."""
    yield from _database(postgres, "template1")


@pytest.fixture(scope="session")
def _migrated(postgres: Postgres) -> str:
    """The name of a database with an up-to-date schema, to make others from."""
    migrate_store(postgres.create_database("migrated"))
    return "migrated"


def _database(postgres: Postgres, template: str) -> Iterator[str]:
    name = f"test{next(_numbers)}"
    yield postgres.create_database(name, template)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def postgres_databases(
    postgres: Postgres, _migrated: str
) -> Callable[[], contextlib.AbstractContextManager[str]]:
    """Makes databases ready to be served, each gone when its context ends."""
    return contextlib.contextmanager(lambda: _database(postgres, _migrated))


@pytest.fixture
def postgres_db(postgres: Postgres, _migrated: str) -> Iterator[str]:
    """The URL of a database ready to be served, the test's own."""
    yield from _database(postgres, _migrated)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves what is long to `make prove`, unless it is asked for by name."""
    for item in items:
        if "prove" in item.path.parts:
            item.add_marker("long")
    if MINUTES or any("::" in each or "prove" in Path(each).parts for each in config.args):
        return
    left = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """A running sandbox with its page."""
    with served(tmp_path_factory.mktemp("sandbox") / "not-used.db", "--sandbox") as running:
        yield running


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    """A real browser."""
    started = chromium()
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture(scope="module")
def browser(driver: webdriver.Chrome, sandbox: Http) -> Page:
    """The sandbox's page in a browser."""
    return Page(driver, sandbox.url)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs what is marked `both_stores` with PostgreSQL as well."""
    if metafunc.definition.get_closest_marker("both_stores") and "db" in metafunc.fixturenames:
        metafunc.parametrize("db", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A database of the test's own: a file, or a URL of PostgreSQL."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return tmp_path / "idpass.db"
    url: str = request.getfixturevalue("postgres_db")
    return url


@pytest.fixture
def service(db: Path | str) -> Iterator[Service]:
    """A running server; its database passes an audit in the end."""
    running = Service(db)
    try:
        yield running
    finally:
        running.stop()
    assert problems(db) == []


@pytest.fixture
def guarded(tmp_path: Path, db: Path | str) -> Iterator[Guarded]:
    """A running server with callers: ann and eve of acme, bob of beta; eve may only read."""
    tables = caller("ann"), caller("bob", "beta"), caller("eve", "acme", "read")
    running = Guarded(tmp_path, *tables, db=db)
    try:
        yield running
    finally:
        running.stop()
    assert problems(running.url) == []


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    """A running server with mutual TLS, and the caller billing."""
    running = Secure(tmp_path)
    try:
        yield running
    finally:
        running.stop()
    assert problems(running.url) == []


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command of idpass-server in this process, whose log stays as it is."""
    monkeypatch.setattr(logs, "configure", lambda _: None)
    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests measured and do not judge."""
    measured = defaultdict(list)
    for reports in terminalreporter.stats.values():
        for report in reports:
            # A test's last report has all; under xdist nothing else comes from its process.
            if isinstance(report, pytest.TestReport) and report.when == "teardown":
                for title, line in report.user_properties:
                    measured[title].append(line)
    for title, lines in measured.items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(str(line))
