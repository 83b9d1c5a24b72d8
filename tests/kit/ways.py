"""How a pass gets from `new` into each status, by the words for them."""

from typing import Final

WAYS: Final = {
    "new": (),
    "opened": ("opened",),
    "in_progress": ("opened", "in_progress"),
    "complete": ("opened", "in_progress", "complete"),
    "expired": ("expired",),
    "failed": ("opened", "in_progress", "failed"),
    "cancelled": ("cancelled",),
}
