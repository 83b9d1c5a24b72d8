"""Server of the ID Pass service: `idpass-server`."""
