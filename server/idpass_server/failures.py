"""What operators are told: every failure that ends a command with a message and no traceback.

    OperatorError           exit code 1
    ├── BadSetting          an option cannot be used; exit code 2
    ├── CannotListen        an address cannot be served
    ├── CannotOpen          a database cannot be used
    ├── StoreBroken         a database can no longer be trusted
    ├── ClockWrong          the wall clock is not fit to serve by
    ├── BadCallers          the callers file cannot be used
    ├── BadWebhookKey       the key file of webhooks cannot be used
    ├── BadCertificates     TLS cannot be spoken with the files given
    ├── TooFewDescriptors   the limit of open files is below what connections need
    ├── CannotMake          development certificates cannot be made
    ├── CannotStart         a worker process cannot serve
    ├── HandOverFailed      a process cannot take over from another
    └── PartFailed          a part of a running server ended

BadSetting is here, since several modules raise it; each of the others is defined beside what raises
it. `cli.base` turns all of them into one message on standard error and an exit code; nothing else
does. StoreUnavailable, a refusal of `rules`, is one as well: commands read the store too.
"""

from typing import ClassVar, Final

EXIT_FAILED: Final = 1
"""Exit code of a command that could not be carried out."""
EXIT_USAGE: Final = 2
"""Exit code of a command line that cannot be used."""


class OperatorError(Exception):
    """Base of all failures that an operator can act on.

    The message says what is wrong, which value it is about, and what to do next. It holds no
    secret: a URL in it has passed through `urls.shown_url`.

    Attributes:
        exit_code: of the command that it ends.
    """

    exit_code: ClassVar[int] = EXIT_FAILED


class BadSetting(OperatorError, ValueError):
    """A setting cannot be used: its value, or that it is given along with another."""

    exit_code = EXIT_USAGE
