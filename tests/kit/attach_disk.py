"""Attaches the disk of a machine (see machine.py), which runs this, and goes on in the background.

Usage: attach_disk.py MODULE HOST PORT SIZE
"""

import ctypes
import fcntl
import os
import socket
import sys
from pathlib import Path

BLOCK = 512
FINIT_MODULE = 313
"""Number of the system call on x86-64."""
SET_SOCK, SET_BLKSIZE, DO_IT, SET_SIZE_BLOCKS, SET_FLAGS = 0xAB00, 0xAB01, 0xAB03, 0xAB07, 0xAB0A
HAS_FLAGS, SEND_FLUSH = 1, 4

module, host, port, size = sys.argv[1:]
with Path(module).open("rb") as file:
    if ctypes.CDLL(None).syscall(FINIT_MODULE, file.fileno(), b"nbds_max=1", 0):
        sys.exit(f"the kernel does not take {module}")
connection = socket.create_connection((host, int(port)))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
device = os.open("/dev/nbd0", os.O_RDWR)
for request, argument in (
    (SET_BLKSIZE, BLOCK),
    (SET_SIZE_BLOCKS, int(size) // BLOCK),
    (SET_FLAGS, HAS_FLAGS | SEND_FLUSH),
    (SET_SOCK, connection.fileno()),
):
    fcntl.ioctl(device, request, argument)
if os.fork() == 0:
    fcntl.ioctl(device, DO_IT)
