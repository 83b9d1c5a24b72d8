"""Addresses, HOST:PORT or unix:PATH: split, joined, told apart by who can reach them; networks."""

import ipaddress
import re
from pathlib import Path
from typing import Final

from idpass_server.failures import BadSetting

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PORT: Final = 65_535
_ADDRESS: Final = re.compile(r"\[?(?P<host>[^\[\]]+)\]?:(?P<port>\d{1,5})")


def unix_path(text: str) -> Path | None:
    """The path of a Unix socket's address, unix:PATH or unix:///PATH; None for any other address.

    Raises:
        BadSetting: the path is missing.
    """
    scheme, colon, path = text.partition(":")
    if not colon or scheme != "unix":
        return None
    path = path.removeprefix("//")
    if not path or path.endswith("/"):
        raise BadSetting(f"{text!r} is not unix:PATH, such as unix:/run/idpass/grpc.sock")
    return Path(path).absolute()


def split(text: str) -> tuple[str, int]:
    """Splits HOST:PORT, where an IPv6 host stands in brackets.

    Returns:
        the host without brackets, and the port.

    Raises:
        BadSetting: the text has another form.
    """
    match = _ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > MAX_PORT:
        raise BadSetting(f"{text!r} is not HOST:PORT, such as 127.0.0.1:50051")
    return match["host"], int(match["port"])


def split_loopback(
    option: str, text: str, instead: str = "Put a proxy with TLS that knows its callers in front"
) -> tuple[str, int]:
    """As `split`, for an address that speaks plain text and must stay on this machine.

    Args:
        option: that the address was given with.
        text: the address.
        instead: what to do so that other machines can connect.

    Raises:
        BadSetting: other machines could reach it.
    """
    host, port = split(text)
    if not is_loopback(host):
        raise BadSetting(
            f"{option} {text} is refused: it can be reached from other machines, and plain text "
            f"could be read and changed on the way. {instead}, or use 127.0.0.1"
        )
    return host, port


def join(host: str, port: int) -> str:
    """HOST:PORT, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host, which has no brackets."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def networks(option: str, text: str) -> list[Network]:
    """Splits a list of networks such as 10.0.0.0/8,fd00::/8.

    Args:
        option: that it was given with.
        text: the list.

    Raises:
        BadSetting: one of them is no network.
    """
    found: list[Network] = []
    for each in text.split(","):
        try:
            found.append(ipaddress.ip_network(each.strip()))
        except ValueError as error:
            raise BadSetting(
                f"{option}: {each.strip()!r} is not a network such as 10.0.0.0/8: {error}"
            ) from error
    return found
