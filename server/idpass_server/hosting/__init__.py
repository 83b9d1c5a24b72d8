"""Puts a server together: its ports, TLS, callers file and health, and what gRPC is told.

In here: what is made once for each server and read again on SIGHUP. May import `api`, `engine`,
`store`. A rule about a call belongs to `api`.
"""
