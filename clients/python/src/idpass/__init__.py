"""Client of the ID Pass service. `idpass.v1` holds the generated messages and stubs."""
