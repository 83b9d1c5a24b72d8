"""The key file: made once, for its owner alone, and refused where it could have leaked."""

from pathlib import Path

import pytest

from idpass_server.config import Settings
from idpass_server.delivery.signing import parse_keys
from idpass_server.failures import BadSetting
from kit.hooked import key_file
from kit.serving import url_of
from kit.support import cli


def test_a_key_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "webhook.key"
    done = cli("webhook-key", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert path.stat().st_mode & 0o777 == 0o600
    (key,) = parse_keys(path.read_bytes())
    assert len(key) == 32


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    before = path.read_bytes()
    done = cli("webhook-key", str(path))
    assert done.returncode == 1
    assert "exists and is left alone" in done.stderr
    assert path.read_bytes() == before
    done = cli("webhook-key", str(tmp_path / "no" / "folder"))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0o600, "cannot be read"),
        (b"", 0o600, "has no key"),
        (b"secret, not base64", 0o600, "not base64: number 1"),
        (b"c2hvcnQ=\n", 0o600, "a key of 5 bytes, not 32"),
        (b"A" * 44, 0o644, "can be read by every user"),
        (b"A" * 44, 0o620, "can be written by other users"),
        (b"A" * 44 + b"\n" + b"A" * 44 + b"\nx", 0o600, "not base64: number 3"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_told_without_its_content(
    tmp_path: Path, content: bytes | None, mode: int, said: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    db = url_of(tmp_path / "idpass.db")
    done = cli("serve", "--listen", "127.0.0.1:0", "--db", db, "--webhook-key", str(path))
    assert done.returncode == 1
    assert said in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_networks_that_are_none_are_refused() -> None:
    for text, said in [
        ("10.0.0.0/33", "'10.0.0.0/33' is not a network"),
        ("10.0.0.1/8", "has host bits set"),
        ("", "'' is not a network"),
        ("example.com", "'example.com' is not a network"),
    ]:
        with pytest.raises(BadSetting, match=said):
            Settings(webhook_key="key", webhook_allow=text)
    with pytest.raises(BadSetting, match="needs --webhook-key"):
        Settings(webhook_allow="10.0.0.0/8")
