"""Makes ids. Apart from the rules, since making one reads the clock."""

import uuid_utils


def new_uuid() -> str:
    """A UUIDv7: ids made one after the other lie together in an index."""
    return str(uuid_utils.uuid7())
