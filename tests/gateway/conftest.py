from collections.abc import Iterator

import pytest

from kit.hooked import key_file
from kit.http import Http, served
from kit.support import problems, set_slots


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """A running server with HTTP; its database passes an audit in the end."""
    db = tmp_path_factory.mktemp("server") / "idpass.db"
    with served(db, "--webhook-key", str(key_file(db.parent))) as running:
        set_slots(db, 1_000_000)
        yield running
    assert problems(db) == []
