from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.hooked import Hooked
from kit.receiver import Receiver
from kit.support import problems


@pytest.fixture
def hooked(db: Path | str, tmp_path: Path) -> Iterator[Hooked]:
    """A running server with webhooks; its database passes an audit in the end."""
    running = Hooked(db, tmp_path, drain_s=1.0)
    try:
        yield running
    finally:
        running.stop()
    assert problems(db) == []


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running
