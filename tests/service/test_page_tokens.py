"""Page tokens from strangers: what is none is None, whatever it is."""

import base64

import pytest

from idpass_server.api import page_tokens

TOKEN = page_tokens.write({"digest": "history", "id": ""})


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_a_token_is_read_as_it_was_written() -> None:
    assert page_tokens.read(TOKEN) == {"digest": "history", "id": ""}


@pytest.mark.parametrize(
    "token",
    [
        "none",
        "ä",
        f"{TOKEN}!",
        f"{TOKEN[:8]}\n{TOKEN[8:]}",
        TOKEN[:-1],
        encoded("{"),
        encoded("[" * 100_000),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
    ids=lambda token: token[:12],
)
def test_what_is_no_token_is_none(token: str) -> None:
    assert page_tokens.read(token) is None
