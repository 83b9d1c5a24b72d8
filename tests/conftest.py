import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from idpass_server import logs
from postgres import Postgres
from support import Service, problems

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")
logs.configure("critical")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A running server; its database passes an audit in the end."""
    running = Service(tmp_path / "idpass.db")
    try:
        yield running
    finally:
        running.stop()
    assert problems(running.db) == []


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL, started for the first test that asks for it."""
    with Postgres() as running:
        yield running


_numbers = itertools.count(1)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database, the test's own."""
    name = f"test{next(_numbers)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)
