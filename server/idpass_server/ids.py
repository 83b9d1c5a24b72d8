"""Makes ids. Not part of the rules, since making one reads the clock."""

import uuid_utils


def new_uuid() -> str:
    """A UUIDv7: consecutive ids are neighbours in an index."""
    return str(uuid_utils.uuid7())
