"""HTTP/JSON in front of the gRPC service, and the sandbox page.

In here: a client of the service like any other; what is allowed, refused or refunded is decided by
the service alone. May import the client's messages (`idpass.v1`) and root modules, no other wing.
Needs the extra `idpass-server[http]`; this file imports nothing, so that the rest works without it.
"""
