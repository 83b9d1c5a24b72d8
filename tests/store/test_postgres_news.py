"""News of commits go from process to process: at once by NOTIFY, and in any case by looking."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, NoReturn

import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store.postgres import news as postgres_news
from idpass_server.store.postgres.store import PostgresStore
from kit.postgres import Postgres
from kit.support import eventually, make_accounts

NOW_US = 1_790_000_000_000_000


def register(account: str) -> Register:
    return Register(account, "tests", new_uuid(), None, new_uuid())


class Pair:
    """Two processes' stores: one commits, the other one listens."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.news: dict[str, int] = {}
        self.committing = stack.enter_context(closing(PostgresStore(url)))
        self.listening = stack.enter_context(closing(PostgresStore(url)))

    def listen(self) -> None:
        self.committing.listen(list, lambda _: None)
        self.listening.listen(lambda: ["demo"], self.hear)

    def hear(self, news: Mapping[str, int]) -> None:
        self.news.update(news)

    def commit(self, *accounts: str) -> None:
        self.committing.commit(list(map(register, accounts)), NOW_US)


@pytest.fixture
def pair(postgres_db: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(postgres_db, stack)


@pytest.fixture
def listens(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Has looking find nothing. Set once the listener listens."""
    looks = threading.Event()
    monkeypatch.setattr(postgres_news, "POLL_S", 0.1)
    monkeypatch.setattr(postgres_news.Listener, "_look", lambda *_: looks.set())
    return looks


def test_every_commit_is_announced_however_many_accounts_it_has(
    listens: threading.Event, pair: Pair, postgres_db: str
) -> None:
    names = [f"account-{n}" for n in range(2 * postgres_news.ACCOUNTS_PER_NOTIFY + 1)]
    make_accounts(postgres_db, *names)
    pair.listen()
    assert listens.wait(30)
    pair.commit(*names)
    eventually(lambda: pair.news == dict.fromkeys(names, 1))
    pair.commit(names[0])
    eventually(lambda: pair.news[names[0]] == 2)


def test_an_announcement_that_fails_is_followed_by_others(
    listens: threading.Event, pair: Pair
) -> None:
    pair.listen()
    assert listens.wait(30)
    failed = threading.Event()

    def fail(_: Any) -> NoReturn:
        failed.set()
        raise StoreUnavailable("the database is out of reach")

    announcer = pair.committing._announcer
    assert announcer is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(announcer._link, "run", fail)
        pair.commit("demo")
        assert failed.wait(30)
    pair.commit("demo")
    eventually(lambda: pair.news == {"demo": 2})


def test_a_listener_whose_connection_was_ended_listens_again(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, postgres: Postgres, postgres_db: str
) -> None:
    monkeypatch.setattr(postgres_news, "POLL_S", 0.02)
    pair.listen()
    for sequence in (1, 2):
        pair.commit("demo")
        eventually(lambda: pair.news == {"demo": sequence})  # noqa: B023 called at once
        assert postgres.kill_backends(postgres_db.rpartition("/")[2])


def test_a_listener_whose_connection_was_cut_does_not_wait_to_listen_again(
    listens: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    postgres: Postgres,
    postgres_db: str,
) -> None:
    name = postgres_db.rpartition("/")[2]
    monkeypatch.setattr(postgres_news, "POLL_S", 1_000)
    pair.listening.listen(lambda: ["demo"], pair.hear)
    assert listens.wait(30)
    listens.clear()
    assert postgres.kill_backends(name)
    assert listens.wait(30)
    monkeypatch.setattr(postgres_news, "POLL_S", 0.1)
    postgres.kill_backends(name)  # or it would hear that it is to end in some minutes


def test_news_that_were_never_announced_are_found_by_looking(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    monkeypatch.setattr(postgres_news, "POLL_S", 0.02)
    monkeypatch.setattr(postgres_news.Announcer, "announce", lambda *_: None)
    pair.listen()
    for sequence in (1, 2):
        pair.commit("demo")
        eventually(lambda: pair.news == {"demo": sequence})  # noqa: B023 called at once
