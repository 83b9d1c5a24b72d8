"""Environment variables that look like options of `serve` and are not: most often misspelt."""

import difflib
import re
from collections.abc import Iterable
from typing import Final

from idpass_server.config import OPTIONS

_CLIENT: Final = {f"IDPASS_{word}" for word in ("ADDRESS", "TLS", "CA", "CERT", "KEY", "TOKEN")}
"""Variables of the client's command line."""
KUBERNETES: Final = re.compile(
    r"IDPASS_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_[A-Z]+(_PROTO|_PORT|_ADDR)?)?)"
)
"""Variables that each pod gets for a Service of its namespace named idpass, or idpass-anything."""


def unknown_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """Finds variables that start with IDPASS_ and that nothing reads.

    Args:
        environment: names of environment variables.

    Returns:
        for each of them the name of the option's variable that is spelt most like it, or None.
    """
    known = [each.variable for each in OPTIONS.values()]
    return {
        name: next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.7)), None)
        for name in sorted(environment)
        if name.startswith("IDPASS_")
        and name not in {*known, *_CLIENT}
        and not KUBERNETES.fullmatch(name)
    }
