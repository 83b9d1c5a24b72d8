"""Commands that make credentials: `token`, `dev-certs` and `webhook-key`."""

import base64
import hashlib
import os
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


@main.command("webhook-key")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def webhook_key_command(file: Path) -> None:
    """Make the key that webhooks' secrets are derived from, in FILE, which only its owner may read.

    Give it to every server process with --webhook-key, and keep a copy apart from the database's
    backups: with another key receivers no longer know our signatures.
    """
    key = base64.b64encode(secrets.token_bytes(32)) + b"\n"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as made:
            made.write(key)
            made.flush()
            os.fsync(descriptor)
    except FileExistsError as error:
        raise click.ClickException(
            f"{file} exists and is left alone: receivers know our signatures by it. To change over "
            "to another key see webhooks.md"
        ) from error
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written ({error.strerror})") from error
    click.echo(f"{file} is made; serve with: --webhook-key {file}", err=True)
