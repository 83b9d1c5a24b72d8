"""Which URLs an account may give, and which addresses are open."""

import pytest

from idpass_server.addresses import networks
from idpass_server.delivery.addresses import Addresses, BadUrl

PUBLIC = Addresses()
INSIDE = Addresses(networks("", "10.1.0.0/16,fd00::/8"))


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://example.com/hook", None),
        ("https://example.com", "https://example.com/"),
        ("https://EXAMPLE.com:443/a?b=c", "https://example.com:443/a?b=c"),
        ("https://example.com.:8443/", "https://example.com:8443/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://例え.テスト/", "https://xn--r8jz45g.xn--zckzah/"),
        ("https://93.184.215.14/", None),
        ("https://[2606:2800:21f:CB07::1]/", "https://[2606:2800:21f:cb07::1]/"),
        ("https://example.com/%E2%82%AC", None),
    ],
)
def test_good_urls(url: str, kept: str | None) -> None:
    assert PUBLIC.check(url) == (kept or url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        *((text, "is not a URL") for text in ("", "example.com", "https:", "https://", "//x/")),
        *((text, "is not a URL") for text in ("file:///etc/passwd", "ftp://example.com/")),
        *((text, "is not a URL") for text in ("https://example.com:x/", "https://[::1/")),
        ("https://example.com:99999/", "is not a URL"),
        ("gopher://example.com/", "is not a URL"),
        ("http://example.com/", "needs https"),
        ("https://user@example.com/", "user or password"),
        ("https://user:pass@example.com/", "user or password"),
        ("https://@example.com/", "user or password"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com:22/", "has port 22"),
        ("https://example.com:25/", "has port 25"),
        ("https://example.com:0/", "has port 0"),
        ("https://exa mple.com/", "has a space"),
        ("https://example.com/\n", "has a space"),
        ("https://example.com\\@10.0.0.1/", "a backslash"),
        ("https://example.com/\u202e", "cannot be printed"),
        ("https://example.com/€", "percent-encoded"),
        ("https://127.0.0.1/", "the address 127.0.0.1, which is not public"),
        ("https://10.0.0.1/", "not public"),
        ("https://169.254.169.254/latest/meta-data", "not public"),
        ("https://[::1]/", "not public"),
        ("https://[::ffff:10.0.0.1]/", "not public"),
        ("https://[fe80::1%25eth0]/", "has a zone"),
        ("https://2130706433/", "not four decimal numbers"),
        ("https://0x7f000001/", "not four decimal numbers"),
        ("https://0x7f.0.0.1/", "not four decimal numbers"),
        ("https://0177.0.0.1/", "not four decimal numbers"),
        ("https://127.1/", "not four decimal numbers"),
        ("https://example.com.0x/", "not four decimal numbers"),
        ("https://１２７.0.0.1/", "not public"),
        ("https://ex_ample..com/", "no name"),
        ("https://-example.com/", "no name"),
        (f"https://{'a' * 64}.com/", "no name"),
        (f"https://example.com/{'a' * 2_048}", "characters; at most 2048"),
    ],
)
def test_bad_urls(url: str, said: str) -> None:
    with pytest.raises(BadUrl, match=said):
        PUBLIC.check(url)


def test_what_is_allowed_may_be_plain_http_and_nothing_else() -> None:
    assert INSIDE.check("http://10.1.2.3:8080/hook") == "http://10.1.2.3:8080/hook"
    assert (
        INSIDE.check("http://hooks.internal/") == "http://hooks.internal/"
    )  # judged when resolved
    for url in ("http://10.2.0.1/", "https://10.2.0.1/", "http://93.184.215.14/"):
        with pytest.raises(BadUrl):
            INSIDE.check(url)
    assert INSIDE.judge("fd00::1", "http") is None
    assert INSIDE.judge("::ffff:10.1.0.1", "http") is None
    assert INSIDE.judge("93.184.215.14", "http") == "needs https"


CLOSED = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254
    172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1
    198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1
    2001::1 2001:db8::1 2001:10::1 2001:20::1 2002:0a00:0001::1 2002:7f00:0001:: 3fff::1 5f00::1
    fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 4000::1 2620:4f:8000::1
"""
OPEN = """
    1.1.1.1 93.184.215.14 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.255.255
    172.32.0.0 192.0.1.0 198.17.255.255 198.20.0.0 223.255.255.255 168.63.129.17
    2606:4700::1111 2a00:1450:4001::1 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 2002:0101:0101::1
"""


def test_addresses_that_are_not_public_are_closed() -> None:
    assert [each for each in CLOSED.split() if PUBLIC.judge(each, "https") is None] == []
    assert PUBLIC.judge("fe80::1%eth0", "https") == "has a zone"
    assert PUBLIC.judge("localhost", "https") == "is not an address"


def test_public_addresses_are_open_to_https_only() -> None:
    judged = {each: PUBLIC.judge(each, "https") for each in OPEN.split()}
    assert {each: why for each, why in judged.items() if why} == {}
    assert PUBLIC.judge("1.1.1.1", "http") == "needs https"
