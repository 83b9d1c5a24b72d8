"""The only users of the store: writes, reads, the sweeper, and their clock.

In here: what owns a thread or decides when the store is used. May import `store` and `rules`. No
gRPC, no protobuf.
"""
