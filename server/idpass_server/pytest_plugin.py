"""The fixture `idpass_server` for callers' tests; pytest discovers it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from idpass_server.testing import RunningServer


@pytest.fixture
def idpass_server() -> "Iterator[RunningServer]":
    """The real server, with an empty database; see idpass_server.testing."""
    # Imported here, so that tests without the fixture do not wait for it.
    from idpass_server.testing import running_server  # noqa: PLC0415

    with running_server() as server:
        yield server
