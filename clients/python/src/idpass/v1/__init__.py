"""Generated from protos/idpass/v1; never edited."""
