"""HTTP/JSON in front of the gRPC service, and the sandbox page.

A client like any other: what is allowed, refused or refunded is decided by the service alone.
Needs the extra `idpass-server[http]`; nothing is imported here, so that the rest does without.
"""
