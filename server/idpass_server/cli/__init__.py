"""The command line `idpass-server`: the one place that reads options and the environment.

Exit codes: 0 done; 1 it could not be done, or what was checked is not right; 2 the command line
is wrong; 4 a server gives no answer; 5 done, but the output could not be written; 74 the store
broke while serving.
"""

from idpass_server.cli import accounts, credentials, databases, health, serving
from idpass_server.cli.base import main

__all__ = ["accounts", "credentials", "databases", "health", "main", "serving"]
