"""The rules: what may become of a pass, as data and pure functions.

In here: records, commands, refusals, the lifecycle, and the batch that applies it. No I/O, no
clock, no protobuf, no SQL: time and ids are arguments. Imports nothing but itself.
"""
