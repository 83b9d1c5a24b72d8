"""What the engine tells about its work, to whoever keeps figures of it."""

from collections.abc import Collection, Sequence

from idpass_server.rules.records import Event


class EngineObserver:
    """Keeps nothing; a subclass does."""

    def batch(self, waited_s: float, commands: int, events: Sequence[Event]) -> None:
        """A batch has been committed; on the writer's thread.

        Args:
            waited_s: from the submission of its first call until it was taken, seconds.
            commands: in it.
            events: that it stored; none for replays and refusals.
        """

    def currencies(self, found: Collection[str]) -> None:
        """Some accounts' currencies have been read; on any thread."""

    def read(self, what: str, seconds: float) -> None:
        """A read has ended; on any thread.

        Args:
            what: name of the function that read.
            seconds: that it took, with the wait for a reading thread.
        """

    def failed(self, kind: str) -> None:
        """The store has failed a batch, a check or a read; on any thread.

        Args:
            kind: `unavailable` (nothing was changed), `outcome_unknown`, `broken` (the process goes
                down), or `fault` (a bug).
        """


NOBODY = EngineObserver()
