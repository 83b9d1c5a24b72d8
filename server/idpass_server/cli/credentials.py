"""Commands that make credentials: `token` and `dev-certs`."""

import hashlib
import secrets
from pathlib import Path

import click

from idpass_server import extras
from idpass_server.cli.base import main


@main.command("dev-certs")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--host", "hosts", multiple=True, help="Name or IP address of the server; may be repeated."
)
@click.option(
    "--spiffe-id",
    "spiffe_ids",
    multiple=True,
    help="SPIFFE ID of a caller, such as spiffe://example.org/billing; may be repeated.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 3_650),
    default=90,
    show_default=True,
    help="Days of validity.",
)
def dev_certs_command(
    folder: Path, hosts: tuple[str, ...], spiffe_ids: tuple[str, ...], days: int
) -> None:
    """Make an authority and certificates for development, in DIR.

    The server's certificate is for localhost, 127.0.0.1, ::1 and each --host. Each --spiffe-id gets
    its own client certificate.
    """
    try:
        from idpass_server.trying import dev_certs  # noqa: PLC0415 an extra may be missing
    except ImportError as error:
        raise click.ClickException(extras.missing("dev-certs", error, "dev-certs")) from error
    click.echo(dev_certs.make(folder, hosts=hosts, spiffe_ids=spiffe_ids, days=days).described())


@main.command("token")
def token_command() -> None:
    """Make a token for a caller, and the line for its table in the callers file.

    Give the token to the caller alone: the service stores only the digest in that line.
    """
    token = secrets.token_urlsafe(32)
    click.echo(token)
    click.echo(f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"', err=True)
