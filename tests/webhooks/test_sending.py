"""A receiver may do what it likes: a request ends in time, reads little, and goes where it may."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from idpass_server.addresses import networks
from idpass_server.delivery import sending
from idpass_server.delivery.addresses import Addresses
from idpass_server.delivery.sending import READ_BYTES, Sender, Sent
from kit import receiver as behaving
from kit.receiver import Answer, Receiver

LOOPBACK = Addresses(networks("", "127.0.0.0/8"))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline for those that wait for it."""
    monkeypatch.setattr(sending, "TOTAL_S", 0.3)


@contextlib.asynccontextmanager
async def sender(addresses: Addresses = LOOPBACK) -> AsyncIterator[Sender]:
    made = Sender(addresses)
    try:
        yield made
    finally:
        await made.close()


async def post(url: str, addresses: Addresses = LOOPBACK) -> Sent:
    async with sender(addresses) as sends:
        return await sends.post(url, {"webhook-id": "msg"}, b"{}")


async def test_an_answer_is_taken(receiver: Receiver) -> None:
    receiver.answers = [Answer(200, (), b"thank you\x00\xff")]
    sent = await post(receiver.url)
    assert (sent.status_code, sent.error) == (200, "")
    assert sent.answer == "thank you\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    (request,) = receiver.requests
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("behaviour", [behaving.hang, behaving.hang_after_headers, behaving.drip])
async def test_an_answer_that_does_not_end_is_none(receiver: Receiver, behaviour: Any) -> None:
    receiver.answers = [behaviour]
    sent = await post(receiver.url)
    assert (sent.status_code, sent.error) == (None, "timeout")


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (behaving.close, "connection closed"),
        (behaving.cut_short, "answer not valid"),
        (behaving.endless_head, "answer not valid"),
    ],
)
async def test_an_answer_that_does_not_come_whole_is_none(
    receiver: Receiver, behaviour: Any, error: str
) -> None:
    receiver.answers = [behaviour]
    sent = await post(receiver.url)
    assert (sent.status_code, sent.error) == (None, error)


@pytest.mark.usefixtures("soon")
async def test_a_connection_that_is_not_served_ends_in_time() -> None:
    with Receiver(on_connect=behaving.hang) as receiver:
        assert (await post(receiver.url)).error == "timeout"
        # The same before TLS is spoken.
        assert (await post(receiver.url.replace("http:", "https:"))).error == "timeout"


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        assert (await post(url)).error == "connection failed"


async def test_of_a_long_answer_little_is_read(receiver: Receiver) -> None:
    size = 10_000_000
    written = []

    async def long(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
        for _ in range(size // 10_000):
            writer.write(b"x" * 10_000)
            await writer.drain()
            written.append(10_000)

    receiver.answers = [long]
    sent = await post(receiver.url)
    assert sent.status_code == 200
    assert sent.answer == "x" * 1_024
    assert sum(written) < size
    assert size > READ_BYTES


async def test_an_answer_is_never_unpacked(receiver: Receiver) -> None:
    receiver.answers = [Answer(200, ("content-encoding: gzip",), b"\x1f\x8b not gzip")]
    sent = await post(receiver.url)
    assert sent.status_code == 200
    assert receiver.requests[0].headers["accept-encoding"] == "identity"


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with Receiver() as other:
        receiver.answers = [Answer(307, (f"location: {other.url}",))]
        assert (await post(receiver.url)).status_code == 307
        receiver.answers = [Answer(302, ("location: http://169.254.169.254/latest/meta-data/",))]
        assert (await post(receiver.url)).status_code == 302
        assert other.requests == []


async def test_no_proxy_of_the_environment_is_asked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await post(receiver.url)).status_code == 200
        assert proxy.connections == 0


async def test_a_cookie_does_not_come_back(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, ["127.0.0.1"])  # an address would get none from anybody
    receiver.answers = [Answer(200, ("set-cookie: a=b; path=/",))]
    async with sender() as sends:
        for _ in range(2):
            await sends.post(f"http://example.com:{receiver.port}/", {}, b"{}")
    assert [request.headers.get("cookie") for request in receiver.requests] == [None, None]


async def test_a_kept_connection_is_used_again_and_its_end_is_no_failure(
    receiver: Receiver,
) -> None:
    closing = Answer(200)

    async def then_close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(closing.bytes())
        await writer.drain()

    receiver.answers = [200, 200, then_close, 200]
    async with sender() as sends:
        for number in range(4):
            sent = await sends.post(receiver.url, {}, b"{}")
            assert sent.status_code == 200, (number, sent)
    assert receiver.connections == 2


async def test_a_new_connection_that_ends_without_an_answer_is_a_failure(
    receiver: Receiver,
) -> None:
    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    receiver.answers = [close, 200]
    sent = await post(receiver.url)
    assert sent.status_code is None
    assert sent.error
    assert receiver.connections == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0", 0), ("-5", 0), ("soon", 0), ("1e9", 0), ("9" * 30, 999_999_999)],
)
async def test_retry_after_is_read_in_seconds(receiver: Receiver, value: str, seconds: int) -> None:
    receiver.answers = [Answer(503, (f"retry-after: {value}",))]
    assert (await post(receiver.url)).retry_after_us == seconds * 1_000_000


async def test_retry_after_is_read_as_a_date(receiver: Receiver) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    receiver.answers = [Answer(503, (f"retry-after: {format_datetime(until, usegmt=True)}",))]
    sent = await post(receiver.url)
    assert 3_500_000_000 < sent.retry_after_us <= 3_600_000_000


# -- addresses


def resolves(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Puts answers of DNS in place, one after the other. Returns the names asked for."""
    asked: list[str] = []
    left = list(answers)

    def look_up(host: str) -> Any:
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in found]

    monkeypatch.setattr(sending, "_look_up", look_up)
    return asked


@pytest.mark.parametrize(
    "answer",
    [
        *(["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], ["::ffff:127.0.0.1"]),
        *(["fd00:ec2::254"], ["fe80::1"], ["64:ff9b::7f00:1"], ["2002:7f00:1::1"]),
        ["93.184.215.14", "127.0.0.1"],
    ],
)
async def test_a_name_of_an_inner_address_is_not_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, answer: list[str]
) -> None:
    resolves(monkeypatch, answer)
    sent = await post(f"https://example.com:{receiver.port}/", Addresses())
    assert sent.error == "address not allowed"
    assert receiver.connections == 0


async def test_one_address_that_is_not_allowed_speaks_against_the_name(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, ["127.0.0.1", "127.0.0.2"])
    only_first = Addresses(networks("", "127.0.0.1/32"))
    sent = await post(f"http://example.com:{receiver.port}/", only_first)
    assert sent.error == "address not allowed"
    assert receiver.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_an_inner_address_in_a_url_is_not_connected_to(receiver: Receiver, host: str) -> None:
    """A URL could have been stored when it was still allowed."""
    sent = await post(f"https://{host}:{receiver.port}/", Addresses())
    assert sent.error == "address not allowed"
    assert receiver.connections == 0


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
async def test_an_address_in_disguise_is_not_connected_to(receiver: Receiver, host: str) -> None:
    sent = await post(f"https://{host}:{receiver.port}/", Addresses())
    assert sent.status_code is None
    assert receiver.connections == 0


async def test_a_name_is_resolved_once_and_what_was_judged_is_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second answer of a rebinding name is never asked for, and would be judged as well."""
    asked = resolves(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    only_first = Addresses(networks("", "127.0.0.1/32"))
    async with sender(only_first) as sends:
        url = f"http://example.com:{receiver.port}/"
        assert (await sends.post(url, {}, b"{}")).status_code == 200
        assert asked == ["example.com"]
        # The kept connection goes on to the address that was judged.
        assert (await sends.post(url, {}, b"{}")).status_code == 200
        assert asked == ["example.com"]
    sent = await post(f"http://example.com:{receiver.port}/", only_first)
    assert sent.error == "address not allowed"
    assert receiver.connections == 1


async def test_http_goes_to_allowed_networks_only(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, ["93.184.215.14"])
    sent = await post(f"http://example.com:{receiver.port}/")
    assert sent.error == "address not allowed"


@pytest.mark.usefixtures("soon")
async def test_a_name_server_that_hangs_holds_up_one_name_only(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = socket.socket()
    hanging.bind(("127.0.0.1", 0))
    hanging.listen()
    asked = []

    def look_up(host: str) -> Any:
        asked.append(host)
        if host == "slow.example":
            with contextlib.suppress(OSError):
                hanging.accept()
            raise OSError
        return [(socket.AF_INET, "127.0.0.1")]

    monkeypatch.setattr(sending, "_look_up", look_up)
    try:
        async with sender() as sends:
            slow = [
                asyncio.create_task(sends.post("http://slow.example/", {}, b"{}"))
                for _ in range(40)
            ]
            url = f"http://example.com:{receiver.port}/"
            assert (await sends.post(url, {}, b"{}")).status_code == 200
            assert {(await each).error for each in slow} == {"timeout"}
        assert asked.count("slow.example") == 1
    finally:
        hanging.shutdown(socket.SHUT_RDWR)
        hanging.close()


async def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(_host: str) -> Any:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(sending, "_look_up", look_up)
    assert (await post("http://no.example/")).error == "name not resolved"


# -- certificates


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that the system trusts."""
    made = trustme.CA()
    path = tmp_path / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return made


def tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


async def test_a_good_certificate_is_accepted_by_the_name(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, ["127.0.0.1"])
    with Receiver(tls=tls(authority.issue_cert("example.com"))) as receiver:
        sent = await post(f"https://example.com:{receiver.port}/")
        assert sent.status_code == 200


async def test_a_bad_certificate_gets_nothing(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, ["127.0.0.1"])
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for certificate, said in [
        (authority.issue_cert("example.org"), "Hostname mismatch"),
        (authority.issue_cert("example.com", not_after=past), "certificate has expired"),
        (trustme.CA().issue_cert("example.com"), "unable to get local issuer certificate"),
    ]:
        with Receiver(tls=tls(certificate)) as receiver:
            sent = await post(f"https://example.com:{receiver.port}/")
            assert sent.status_code is None
            assert sent.error.startswith("certificate not valid"), sent
            assert said in sent.error
            assert receiver.requests == []


async def test_plain_text_where_tls_is_due() -> None:
    async def speak(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Speak HTTP\r\n\r\n")
        await writer.drain()

    with Receiver(on_connect=speak) as receiver:
        assert (await post(receiver.url.replace("http:", "https:"))).error == "TLS failed"
