"""File descriptors: one for each connection that may be open, and a reserve for everything else.

Without it, connections of one kind use up the descriptors of all: the database can no longer be
opened for a backup, nor a callers file read again, nor a connection of the other kind accepted.
"""

import resource
from typing import Final

from idpass_server.failures import OperatorError

RESERVE: Final = 128
"""Descriptors for the database, listeners, logs, and files that are read again."""


class TooFewDescriptors(OperatorError):
    """The process may not open the files that its connections need; the message says what to do."""


def provide(connections: int) -> None:
    """Raises the process's limit of open files as far as it may go.

    Args:
        connections: that may be open at once, of all kinds.

    Raises:
        TooFewDescriptors: that is not far enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + RESERVE
    # Where there is no hard limit, macOS refuses a soft one that is none.
    wanted = max(soft, needed) if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < needed:
        raise TooFewDescriptors(
            f"{connections} connections and a reserve need {needed} open files, and "
            f"this process may have {wanted}: raise the limit (ulimit -Hn, or LimitNOFILE= in "
            "systemd), or lower --max-connections"
        )
