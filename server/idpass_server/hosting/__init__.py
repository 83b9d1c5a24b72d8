"""Puts a server together: its ports, TLS, callers file, health, and gRPC's channel arguments.

In here: what is made once per server, or reread on SIGHUP. May import `api`, `engine`, `store` and
what is below them. A rule about a call belongs in `api`.
"""
