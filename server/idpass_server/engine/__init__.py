"""The only users of the store: writes, reads, the sweeper, and the clock they read.

In here: what owns a thread or decides when the store is used. May import `store` and `rules`; knows
neither gRPC nor protobuf.
"""
