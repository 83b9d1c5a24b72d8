"""What a store tells about its work, to whoever keeps figures of it."""

from typing import Final, NamedTuple

STEPS: Final = ("load", "decide", "save", "commit")
"""Names of the steps of a batch."""


class Disk(NamedTuple):
    """What a database in a file takes, and what is left, bytes."""

    database: int
    wal: int
    free: int


class StoreObserver:
    """Keeps nothing; a subclass does. Called on the threads that do the work."""

    def committed(self, load_s: float, decide_s: float, save_s: float, commit_s: float) -> None:
        """A batch that changed something has been committed; on the writer's thread.

        Args:
            load_s: beginning the transaction, waiting for locks, and reading, seconds.
            decide_s: the rules, seconds.
            save_s: writing the changes, seconds; where they only queue for the commit, few.
            commit_s: until everything is on disk, seconds.
        """

    def checkpointed(self, seconds: float) -> None:
        """The WAL, or the rest of it, was folded into the file. Comes on any thread."""

    def reconnected(self) -> None:
        """A lost connection has been replaced."""

    def settled(self, outcome: str) -> None:
        """A COMMIT whose outcome was unknown has been looked up.

        Args:
            outcome: `stored`, `run_again` where it was not, or `unknown` where that could not be
                found out.
        """


NOBODY = StoreObserver()
