"""What a store tells about its work, to whoever keeps figures of it."""

from typing import NamedTuple


class Steps(NamedTuple):
    """How long the steps of a batch that changed something took, seconds.

    Attributes:
        load: beginning the transaction, waiting for locks, and reading.
        decide: the rules.
        save: writing the changes; where they are only queued for the commit, next to nothing.
        commit: until everything is on disk.
    """

    load: float
    decide: float
    save: float
    commit: float


class Disk(NamedTuple):
    """What a database in a file takes, and what is left, bytes."""

    database: int
    wal: int
    free: int


class StoreObserver:
    """Keeps nothing; a subclass does. Called on the threads that do the work."""

    def committed(self, steps: Steps) -> None:
        """A batch that changed something has been committed; on the writer's thread."""

    def checkpointed(self, seconds: float) -> None:
        """The WAL was folded into the file, and a commit took at most this long over it."""

    def reconnected(self) -> None:
        """A lost connection has been replaced."""

    def settled(self, outcome: str) -> None:
        """A COMMIT whose outcome was unknown has been looked up.

        Args:
            outcome: `stored`, `run_again` where it was not, or `unknown` where that could not be
                found out.
        """


NOBODY = StoreObserver()
