"""Of a database's URL only user, hosts, ports and database are ever shown."""

import pytest

from idpass_server.failures import BadSetting
from idpass_server.store import CannotOpen
from idpass_server.store.opening import open_store
from idpass_server.store.postgres.errors import said
from idpass_server.store.postgres.session import conninfo
from idpass_server.urls import shown_url
from kit.support import cli, process

SECRETS = ("s3cret", "cr", "et!", "hunter2")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@db/x", "postgresql://me@db/x"),
        ("postgresql://me@db:5432/x", "postgresql://me@db:5432/x"),
        ("postgresql://me:cr:et!@db/x", "postgresql://me@db/x"),
        ("postgresql://me:cr%40et!%2F%3A@db/x", "postgresql://me@db/x"),
        ("postgresql://me:cr?et!@db/x", "postgresql://me@db/x"),
        ("postgresql://me:cr@et!@db/x", "postgresql://***"),
        ("postgresql://me:cr/et!@db/x", "postgresql://***"),
        ("postgresql://me:12/hunter2@db/x", "postgresql://***"),
        ("postgresql://me:s3cret@one:1,two:2/x", "postgresql://me@one:1,two:2/x"),
        (
            "postgresql://me:s3cret@[::1]:5432,db/x?sslmode=require",
            "postgresql://me@[::1]:5432,db/x",
        ),
        ("postgresql://me:s3cret@%2Frun%2Fpg/x", "postgresql://me@/run/pg/x"),
        ("postgres://db/x?user=me&password=hunter2", "postgres://me@db/x"),
        ("postgresql:///?host=db&port=7&dbname=x&pass%77ord=hunter2", "postgresql://db:7/x"),
        ("postgresql:///x?sslpassword=hunter2&options=-c%20a%3Dhunter2", "postgresql:///x"),
        ("postgresql://me%40realm:s3cret@db/x", "postgresql://me@realm@db/x"),
        ("host=db user=me password=hunter2", "***"),
        ("mysql://me:hunter2@db/x", "mysql:***"),
        ("postgres:/me:hunter2@db/x", "postgres:***"),
        ("sqlite:////var/lib/idpass.db", "sqlite:////var/lib/idpass.db"),
    ],
)
def test_no_form_of_a_url_shows_what_it_hides(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:cr@et!@db/x",
        "postgresql://me:cr/et!@db/x",
        "postgresql://me:12/hunter2@db/x",
        "postgresql://me:cr%et!@db/x",
        "postgresql://me:hunter2@db:cr/x",
        "postgresql://me@db/x?pasword=hunter2",
        "postgresql://me:hunter2@[::1/x",
        "postgresql://me:s3cret@127.0.0.1:1/x?sslmode=hunter2",
        "postgresql://me:s3cret@127.0.0.1:1/x",
        "host=127.0.0.1 port=1 user=me password=hunter2",
        "mysql://me:hunter2@db/x",
    ],
)
def test_what_cannot_be_connected_to_is_told_without_secrets(url: str) -> None:
    with pytest.raises((BadSetting, CannotOpen)) as error:
        open_store(url)
    assert not [secret for secret in SECRETS if secret in str(error.value)]


def test_a_url_that_is_not_encoded_is_refused_with_what_to_write() -> None:
    with pytest.raises(CannotOpen, match="%40"):
        conninfo("postgresql://me:cr@et!@db/x")


def test_a_password_is_taken_out_of_what_others_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    error = RuntimeError("no entry for s3cr@et\nnor hunter2")
    url = "postgresql://me:s3cr%40et@db/x"
    assert str(said(error, url)) == "no entry for *** nor ***"


def test_a_password_is_not_in_the_log_nor_in_an_error(postgres_db: str) -> None:
    url = postgres_db.replace("postgres@", "postgres:hunter2@")
    with process(url) as server:
        server.register()
    assert "hunter2" not in str(server.log)
    done = cli("serve", "--listen", "127.0.0.1:0", "--db", url.replace("/test", "/no-test"))
    assert (done.returncode, "hunter2" in done.stderr) == (1, False)
    assert "does not exist" in done.stderr
