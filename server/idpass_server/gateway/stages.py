"""What the sandbox's shows are played on: a service of their own that has faults.

The gateway asks for one and is a client of it; `trying` makes it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol


class Faults(NamedTuple):
    """What is wrong with a service.

    Attributes:
        kills: whether its process is killed once, when the first cancel is on disk and before
            that is answered. Another process then serves the same file at the same address.
        slow_ms: what each commit takes longer, milliseconds.
        slots: slot limit of its account.
    """

    kills: bool
    slow_ms: int
    slots: int


class Stage(Protocol):
    """A service with faults, that has only just been asked for."""

    async def next(self) -> dict[str, Any] | None:
        """What happens next: an object whose `event` says which one. None after the last.

        `serving` says where, in `listen`; `taken` and `committed` which kinds of `commands` a
        batch has; `killed` that its process is gone; `failed` that it ended as it should not
        have, the last.
        """


OpenStage = Callable[[Faults], AbstractAsyncContextManager[Stage]]
"""Makes a stage, which is gone with its process and its files when the context ends."""
