"""The page on support shows what its commands print."""

import re
import shlex

import pytest

from idpass_server.store import inquiries, opening
from kit.commands import Command
from kit.documents import PAGES, blocks
from kit.guarded import Guarded, caller

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
SHAPES = {
    UUID: "UUID",
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": "TIME",
    r"alice@\S+": "OPERATOR",
}


def shape(text: str) -> str:
    """Text with what differs from run to run put away."""
    for pattern, word in SHAPES.items():
        text = re.sub(pattern, word, text)
    return text


@pytest.fixture
def url(guarded: Guarded, command: Command) -> str:
    """The database of a running server, with what the page tells of."""
    db = ("--as", "alice", "--db", guarded.url)
    for name in ("acme", "beta"):
        command("account", "delete", name, "--yes", *db)
    store = opening.open_store(guarded.url, exclusive=False)
    store._writer.execute("DELETE FROM admin_log")  # type: ignore[attr-defined]
    store.close()
    command("account", "create", "acme", "--slots", "5", "--fee", "AUD 4.50", *db)
    command("account", "set", "acme", "--slots", "100", *db)
    guarded.reload(caller("onboarding", "acme"))
    acme = guarded.with_token("onboarding-token")
    acme.pass_in("expired")
    applicant = {"applicant_reference": "case-4711", "request_id": "register-4711"}
    acme.cancel(
        acme.register(**applicant).id_pass.id,
        request_id="cancel-4711",
        reason="CANCEL_REASON_REQUESTED_BY_APPLICANT",
        note="asked by phone",
    )
    return guarded.url


@pytest.mark.parametrize("block", blocks("console", PAGES["support.md"]))
def test_what_is_shown_is_printed(url: str, block: str, command: Command) -> None:
    first, _, shown = block.partition("\n")
    with opening.reading_store(url) as connection:
        (found,) = inquiries.passes_by_applicant(connection, "case-4711")
    program, *arguments = shlex.split(re.sub(UUID, found.id, first.removeprefix("$ ")))
    assert program == "idpass-server"
    assert shape(command(*arguments, "--db", url).stdout) == shape(shown)
