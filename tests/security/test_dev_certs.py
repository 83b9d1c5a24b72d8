"""Certificates to try TLS with: what `idpass-server dev-certs` makes, and how it is used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from kit.documents import PAGES, blocks, command, words
from kit.support import Process, cli, process

IDS = ("spiffe://example.org/billing", "spiffe://example.org/ns/prod/onboarding")


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_an_authority_a_server_and_each_caller_get_a_certificate(tmp_path: Path) -> None:
    ids = [word for each in IDS for word in ("--spiffe-id", each)]
    hosts = ("--host", "idpass.internal", "--host", "10.0.0.7")
    done = cli("dev-certs", "certs", *hosts, *ids, "--days", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "certs"
    keys = {path.name for path in folder.iterdir() if path.stat().st_mode & 0o777 == 0o600}
    certificates = {path.name for path in folder.iterdir()} - keys
    stems = {"ca", "server", "client-billing", "client-ns-prod-onboarding"}
    assert certificates == {f"{stem}.pem" for stem in stems}
    assert keys == {f"{stem}-key.pem" for stem in stems}

    authority = certificate(folder / "ca.pem")
    names = {}
    for stem in stems - {"ca"}:
        issued = certificate(folder / f"{stem}.pem")
        issued.verify_directly_issued_by(authority)
        assert (issued.not_valid_after_utc - issued.not_valid_before_utc).days == 3
        extension = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names[stem] = [str(name.value) for name in extension.value]
        (purpose,) = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        server = purpose == ExtendedKeyUsageOID.SERVER_AUTH
        assert server is (stem == "server")
    assert names == {
        "server": ["localhost", "127.0.0.1", "::1", "idpass.internal", "10.0.0.7"],
        "client-billing": [IDS[0]],
        "client-ns-prod-onboarding": [IDS[1]],
    }


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "client-billing-key.pem").write_text("precious")
    done = cli("dev-certs", ".", "--spiffe-id", IDS[0], cwd=tmp_path)
    assert done.returncode == 1
    assert "client-billing-key.pem exists already" in done.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--spiffe-id", "billing"), "'billing' is not a SPIFFE ID"),
        (("--spiffe-id", IDS[0], "--spiffe-id", IDS[0]), "two SPIFFE IDs"),
        (("--host", "bücher.example"), "is not a host name"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    done = cli("dev-certs", "certs", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None; from idpass_server.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "dev-certs", str(tmp_path / "certs")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs cryptography, which is not installed" in done.stderr
    assert "pip install 'cryptography>=" in done.stderr
    assert "Traceback" not in done.stderr


def call(command: list[str], server: Process, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs an `idpass` command as written, but for the address."""
    assert command[0] == "idpass"
    address = f"localhost:{server.address.rpartition(':')[2]}"
    at = command.index("--address") + 1 if "--address" in command else 0
    rest = command[at + 1 :] if at else command[1:]
    return subprocess.run(
        [sys.executable, "-m", "idpass.cli", "--address", address, *rest],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


def test_the_security_page_shows_how_tls_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, serve, register = (
        command("security.md", start)
        for start in ("idpass-server dev-certs", "idpass-server serve", "idpass --")
    )
    for line in make.splitlines():
        made = cli(*words(line)[1:])
        assert made.returncode == 0, made.stderr
    (callers,) = (
        block
        for block in blocks("toml", PAGES["security.md"])
        if block.startswith("[callers.billing]")
    )
    Path("callers.toml").write_text(callers)
    *beginning, address = words(serve)[:4]
    assert beginning == ["idpass-server", "serve", "--listen"]
    options = words(serve)[4:]
    # The later one counts: as written, but on a free port.
    with process(Path("idpass.db"), "--listen", address.replace("50051", "0"), *options) as server:
        done = call(words(register), server, tmp_path)
        assert done.returncode == 0, done.stderr
        assert "new" in done.stdout


def test_the_commands_that_are_printed_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, ids in (("mutual", ["--spiffe-id", IDS[0]]), ("one-sided", [])):
        printed = cli("dev-certs", folder, *ids).stdout
        serve, idpass = re.findall(r"^  (idpass.*)$", printed, re.MULTILINE)
        with process(Path(f"{folder}.db"), *words(serve)[2:]) as server:
            done = call(words(idpass), server, tmp_path)
            assert done.returncode == 0, done.stderr
            assert "demo" in done.stdout
