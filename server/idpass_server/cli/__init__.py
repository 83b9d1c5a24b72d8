"""The command line `idpass-server`: the only place that reads options and the environment.

In here: commands that parse options, call, and print. May import everything below. What cannot be
done is an OperatorError, which `base` turns into a message and an exit code.

Exit codes: 0 done; 1 not done, or a check found something wrong; 2 wrong command line; 4 no answer
from the server; 5 done, but the output could not be written; 74 the store broke while serving.
"""

from idpass_server.cli.base import main

__all__ = ["main"]
