"""`python -m idpass_server` is `idpass-server`."""

from idpass_server.cli import main

main(prog_name="idpass-server")
