"""The command `idpass-server` itself, and what its commands share."""

from collections.abc import Callable
from typing import Any, Final

import click

from idpass_server import running, workers
from idpass_server.config import BadSetting, Settings, sqlite_path

Command = Callable[..., Any]


def setting(name: str, *names: str, **options: Any) -> Callable[[Command], Command]:
    """An option that is read from the environment as well: --max-calls from IDPASS_MAX_CALLS."""
    word = name.removeprefix("--").partition("/")[0]
    variable = f"IDPASS_{word.replace('-', '_').upper()}"
    return click.option(
        name,
        *names,
        envvar=variable,
        show_envvar=True,
        show_default="default" in options,
        **options,
    )


db_option: Final = setting("--db", default=Settings.db, help="Database URL.")


def must_exist(db: str) -> str:
    """Raises: click.ClickException: the URL names a file that is not there."""
    path = sqlite_path(db)
    if path is not None and not path.exists():
        raise click.ClickException(f"there is no database {path}; say which with --db")
    return db


class _Group(click.Group):
    """Says what could not be done in one line, without a stack trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BadSetting as error:
            raise click.UsageError(str(error)) from error
        except (*running.CANNOT_SERVE, workers.CannotStart) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="idpass-server")
def main() -> None:
    """Cancels in-flight ID Passes: once, durably, with the right refund."""
