"""Messages and stubs, generated from the protos and never edited, and the protos themselves.

`python -m idpass.v1.export DIR` copies them.
"""

from pathlib import Path

PROTO_DIR = Path(__file__).parent.parent / "protos"
"""A folder with the protos, those of Google's that they need, and idpass.binpb.

idpass.binpb is a FileDescriptorSet of them all, with comments.
"""
