"""The rules: the lifecycle of a pass, as data and pure functions.

In here: records, commands, refusals, the lifecycle, and the batch that applies it. No I/O, clock,
protobuf or SQL: time and ids are arguments. Imports only itself.
"""
