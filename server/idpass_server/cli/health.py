"""`health`: checks a running server, for containers and scripts."""

from pathlib import Path
from typing import Any, Final

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from idpass_server.cli.base import main
from idpass_server.config import OPTIONS, Settings

NOT_SERVING: Final = 1
"""Exit code for a server that answers NOT_SERVING."""
UNREACHABLE: Final = 4
"""Exit code for a server that gives no answer."""

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@main.command("health")
@click.option(
    "--address",
    "listen",
    default=Settings.listen,
    show_default=True,
    envvar=OPTIONS["listen"].variable,
    show_envvar=True,
    metavar="HOST:PORT",
    help="Address of the server.",
)
@click.option(
    "--service",
    default="",
    help="Health check to ask for; `liveness` only tells whether the process answers.",
)
@click.option(
    "--tls-ca",
    type=_FILE,
    help="PEM file of the server's authority; turns TLS on.",
)
@click.option("--tls-cert", type=_FILE, help="PEM file of a client certificate, for mutual TLS.")
@click.option("--tls-key", type=_FILE, help="PEM file of its private key.")
@click.option("--tls-name", help="Name in the certificate, if it differs from the address.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 60),
    default=3.0,
    show_default=True,
    help="Deadline of the check, seconds.",
)
@click.pass_context
def health_command(
    context: click.Context,
    /,
    *,
    listen: str,
    service: str,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_name: str | None,
    timeout_s: float,
) -> None:
    """Ask a server whether it can store changes now.

    Exit codes: 0 it can; 1 it cannot, or is stopping; 4 it gives no answer.
    """
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together: give both")
    if tls_ca is None and (tls_cert or tls_name):
        raise click.UsageError("--tls-cert and --tls-name need --tls-ca")
    # A proxy from the environment would answer in place of the server.
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if tls_ca is None:
        channel = grpc.insecure_channel(listen, options)
    else:
        pems = [file.read_bytes() if file else None for file in (tls_ca, tls_key, tls_cert)]
        if tls_name:
            options.append(("grpc.ssl_target_name_override", tls_name))
        channel = grpc.secure_channel(listen, grpc.ssl_channel_credentials(*pems), options)
    request = health_pb2.HealthCheckRequest(service=service)
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            click.echo(f"{listen} gives no answer: {error.details()}", err=True)
            context.exit(UNREACHABLE)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        click.echo("not serving", err=True)
        context.exit(NOT_SERVING)
    click.echo("serving")
