"""What the client tells of retries, for whoever looks: by `logging`, silent unless it is set up.

    idpass.retry   an attempt failed and another follows (INFO); a call was given up (WARNING)
    idpass.watch   a stream broke, or is open again (INFO); a watch was given up (WARNING)

A record has its facts as attributes too, named `idpass_…`: other names may be taken by what callers
add to their records. None has a token, metadata, a note, an applicant's reference, or any text that
a server or a proxy sent.
"""

import logging
import re
from typing import Final

from idpass.errors import IdPassError

RETRY: Final = logging.getLogger("idpass.retry")
WATCH: Final = logging.getLogger("idpass.watch")
# A library without one would have its warnings printed to standard error.
logging.getLogger("idpass").addHandler(logging.NullHandler())

_PLAIN: Final = re.compile(r"[!-~]{1,128}")


def retried(
    logger: logging.Logger, method: str, attempt: int, error: IdPassError, delay_s: float
) -> None:
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "%s: attempt %d failed with %s%s; the next one in %.2f s",
            *(method, attempt, error.code.name, _more(error), delay_s),
            extra=_facts(method, attempt, error, delay_s),
        )


def gave_up(logger: logging.Logger, method: str, attempt: int, error: IdPassError) -> None:
    if logger.isEnabledFor(logging.WARNING):
        logger.warning(
            "%s: gave up after %d attempt%s with %s, %s%s",
            *(method, attempt, "" if attempt == 1 else "s"),
            *(type(error).__name__, error.code.name, _more(error)),
            extra=_facts(method, attempt, error, None),
        )


def back(method: str, attempt: int) -> None:
    """A stream is open again."""
    WATCH.info(
        *("%s: open again, at attempt %d", method, attempt),
        extra={"idpass_method": method, "idpass_attempt": attempt},
    )


def _facts(
    method: str, attempt: int, error: IdPassError, delay_s: float | None
) -> dict[str, object]:
    return {
        "idpass_method": method,
        "idpass_attempt": attempt,
        "idpass_error": type(error).__name__,
        "idpass_code": error.code.name,
        "idpass_reason": _plain(error.reason),
        "idpass_delay_s": delay_s,
        "idpass_request_id": _plain(error.request_id),
        "idpass_reference": _plain(error.reference),
    }


def _more(error: IdPassError) -> str:
    facts = {
        "reason": error.reason,
        "request_id": error.request_id,
        "reference": error.reference,
    }
    told = [f"{name} {_plain(value)}" for name, value in facts.items() if value]
    return f" ({', '.join(told)})" if told else ""


def _plain(text: str | None) -> str | None:
    """What callers and servers give, unless it could be taken for other lines of the log."""
    return text if text is None or _PLAIN.fullmatch(text) else "[unprintable]"
