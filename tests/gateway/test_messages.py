"""How the gateway writes money, and for whom it packs its answers."""

import pytest
from google.type.money_pb2 import Money

from idpass_server.gateway import messages, packing


@pytest.mark.parametrize(
    ("units", "nanos", "amount"),
    [
        (0, 0, "0.00"),
        (4, 500_000_000, "4.50"),
        (4, 505_000_000, "4.505"),
        (4, 567_891_000, "4.567891"),
        (4, 1, "4.000000001"),
        (123_456_789, 0, "123456789.00"),
        (-4, -500_000_000, "-4.50"),
        (-1, 0, "-1.00"),
        (0, -50_000_000, "-0.05"),
    ],
)
def test_money_has_its_sign_and_all_its_decimals_and_two_at_least(
    units: int, nanos: int, amount: str
) -> None:
    money = Money(currency_code="AUD", units=units, nanos=nanos)
    assert messages.money(money) == {"currency": "AUD", "amount": amount}


@pytest.mark.parametrize(
    ("accepts", "packed"),
    [
        (b"gzip", True),
        (b"deflate, GZip;q=0.5", True),
        (b"gzip; q=0.001", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000, br", False),
        (b"deflate, br", False),
        (b"x-gzip", False),
    ],
)
def test_an_answer_is_packed_for_who_takes_that(accepts: bytes, packed: bool) -> None:
    headers = [(b"host", b"localhost"), (b"accept-encoding", accepts)]
    assert packing.accepted(headers) is packed
    assert not packing.accepted(headers[:1])
