"""The words of the contract's enums, as callers write and read them."""

from enum import Enum
from typing import Literal


class Word(str, Enum):
    """An enum whose members are their lower-case words, in text, JSON and comparisons with strings.

    Attributes:
        number: the member's number in the contract's enum.
    """

    number: int

    def __new__(cls, word: str, number: int = 0) -> "Word":  # noqa: PYI034 as in IdPassClient
        member = str.__new__(cls, word)
        member._value_ = word
        member.number = number
        return member

    def __str__(self) -> str:
        return str(self.value)


class Status(Word):
    """The status of a pass. The last four are terminal: nothing leaves them."""

    NEW = "new", 1
    OPENED = "opened", 2
    IN_PROGRESS = "in_progress", 3
    COMPLETE = "complete", 4
    EXPIRED = "expired", 5
    FAILED = "failed", 6
    CANCELLED = "cancelled", 7


class CancelReason(Word):
    """Why a pass is cancelled. For people and reports: it never affects the refund."""

    UNSPECIFIED = "unspecified", 0
    ABANDONED = "abandoned", 1
    SUPERSEDED = "superseded", 2
    DUPLICATE = "duplicate", 3
    REQUESTED_BY_APPLICANT = "requested_by_applicant", 4
    FRAUD_SUSPECTED = "fraud_suspected", 5
    OTHER = "other", 6


# The words as literals, so that a type checker knows them too.
AnyStatus = (
    Status | Literal["new", "opened", "in_progress", "complete", "expired", "failed", "cancelled"]
)
AnyReason = (
    CancelReason
    | Literal[
        "unspecified",
        "abandoned",
        "superseded",
        "duplicate",
        "requested_by_applicant",
        "fraud_suspected",
        "other",
    ]
)
