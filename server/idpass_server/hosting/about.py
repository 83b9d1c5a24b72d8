"""What an operator wants to know of a server that has just started: versions and settings."""

import platform

import grpc

from idpass import __version__
from idpass_server.config import OPTIONS, Settings
from idpass_server.store import Software
from idpass_server.urls import shown_url


def about(settings: Settings, software: Software) -> dict[str, object]:
    """What the line `started` says.

    Args:
        settings: of the server.
        software: what its database is.
    """
    return {
        "version": __version__,
        "schema": software.schema,
        "database": software.database,
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "settings": _changed(settings),
    }


def _changed(settings: Settings) -> dict[str, object]:
    """The settings that are not the default, by option; of a URL only what may be shown."""
    changed: dict[str, object] = {}
    for name, option in OPTIONS.items():
        value = getattr(settings, name)
        if value != getattr(Settings, name):
            shown = shown_url(value) if name == "db" else value
            changed[option.flag.removeprefix("--")] = shown
    return changed
