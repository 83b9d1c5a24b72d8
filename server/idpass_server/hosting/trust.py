"""Whom a server trusts and what it shows of itself: TLS and the callers file, kept up to date."""

from collections.abc import Callable
from pathlib import Path

import structlog

from idpass_server.api.identity import Callers, EveryoneIsDemo, Identity, KnownCallers
from idpass_server.config import Settings
from idpass_server.engine.reads import Reads
from idpass_server.hosting import callers
from idpass_server.hosting.reloading import Reloading, apart
from idpass_server.hosting.tls import Certificates
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import Store

log = structlog.get_logger()


def certificates(settings: Settings, reloading: Reloading) -> Certificates | None:
    """TLS as the settings ask for it.

    Args:
        settings: name the files.
        reloading: watches them from now on.

    Returns:
        those in force; None where TLS is off.

    Raises:
        BadCertificates: TLS cannot be spoken with the files.
    """
    files = (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    paths = [Path(file) for file in files if file is not None]
    if not paths:
        return None

    async def reload() -> None:
        reloading.rejected["certificates"] = not await apart(in_force.reload)

    reloading.watch(paths, reload)
    in_force = Certificates(*paths)
    reloading.rejected["certificates"] = False
    return in_force


async def identify(
    settings: Settings,
    reloading: Reloading,
    store: Store,
    reads: Reads,
    on_change: Callable[[], None],
) -> Identity:
    """How callers are known.

    Args:
        settings: name the callers file, if there is one.
        reloading: watches it from now on.
        store: says which accounts exist.
        reads: runs what asks the store.
        on_change: called on the event loop when other callers are in force.

    Raises:
        BadCallers: the callers file cannot be used.
        StoreUnavailable: the store cannot be read.
    """
    if settings.callers is None:
        return EveryoneIsDemo()
    path = Path(settings.callers)

    async def reload() -> None:
        try:
            identity.replace(await _read_callers(path, store, reads))
        except (callers.BadCallers, StoreUnavailable) as error:
            reloading.rejected["callers"] = True
            log.error("callers_rejected", in_force="the former", reasons=str(error).split("\n"))
        else:
            reloading.rejected["callers"] = False
            on_change()

    reloading.watch([path], reload)
    identity = KnownCallers(
        await _read_callers(path, store, reads),
        client_certificates=settings.tls_client_ca is not None,
    )
    reloading.rejected["callers"] = False
    return identity


async def check_callers(settings: Settings) -> None:
    """Checks the callers file as far as that goes without the database.

    Raises:
        BadCallers: it cannot be used.
    """
    if settings.callers is not None:
        path = Path(settings.callers)
        content = await apart(callers.content, path)
        callers.parse(path, content, lambda _: True)


async def _read_callers(path: Path, store: Store, reads: Reads) -> Callers:
    def account_exists(name: str) -> bool:
        return store.get_account(name) is not None

    content = await apart(callers.content, path)
    found = await reads.run(callers.parse, path, content, account_exists)
    log.info(
        "callers_loaded",
        callers=found.total,
        tokens=len(found.by_token),
        spiffe_ids=len(found.by_spiffe_id),
    )
    return found
