"""How do two processes of one service talk? In pickled messages over a Unix socket; open files may travel along."""

from __future__ import annotations

import os
import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("<Q")


def send(to: socket.socket, message: object, *files: int) -> None:
    """Send a message.

    Args:
        to: a Unix stream socket whose other end is a process of our own.
        message: whatever can be pickled.
        files: descriptors; the other side gets its own of each.

    Raises:
        OSError: the other side is gone, or does not read in time.
    """
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    socket.send_fds(to, [_LENGTH.pack(len(data))], files)
    to.sendall(data)


def receive(source: socket.socket, most_files: int = 0) -> tuple[Any, list[int]]:
    """Wait for a message.

    Args:
        source: as `send`.
        most_files: that may come along.

    Returns:
        The message, and descriptors that the caller must close.

    Raises:
        EOFError: the other side is gone.
        OSError: as the socket; TimeoutError after its timeout.
    """
    header, files, _, _ = socket.recv_fds(source, _LENGTH.size, most_files)
    try:
        header += _exactly(source, _LENGTH.size - len(header)) if header else b""
        if not header:
            raise EOFError
        return pickle.loads(_exactly(source, _LENGTH.unpack(header)[0])), files
    except BaseException:
        for one in files:
            os.close(one)
        raise


def _exactly(source: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = source.recv_into(view[at:])
        if not got:
            raise EOFError
        at += got
    return data
