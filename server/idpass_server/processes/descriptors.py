"""File descriptors: one for each connection that may be open, and a reserve for everything else.

Without the reserve, connections of one kind could use up all descriptors: the database could no
longer be opened for a backup, the callers file reread, or a connection of another kind accepted.
"""

import resource
from typing import Final

from idpass_server.failures import OperatorError

RESERVE: Final = 128
"""Descriptors for the database, listeners, logs, and files that are reread."""


class TooFewDescriptors(OperatorError):
    """The limit of open files is below what connections need; the message says what to do."""


def provide(connections: int) -> None:
    """Raises the process's limit of open files to its hard limit.

    Args:
        connections: number of connections of all kinds that may be open at once.

    Raises:
        TooFewDescriptors: the hard limit is too low for them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + RESERVE
    # Without a hard limit, macOS refuses an unlimited soft one.
    wanted = max(soft, needed) if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < needed:
        raise TooFewDescriptors(
            f"{connections} connections and a reserve need {needed} open files, and "
            f"this process may have {wanted}: raise the limit (ulimit -Hn, or LimitNOFILE= in "
            "systemd), or lower --max-connections"
        )
