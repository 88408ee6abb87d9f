"""Digests of program files, also of a container's: read as data, never executed.

The owner of a container decides what a path in it is: it may be a link to a file of the host, a
pipe that nobody writes to, or a file on a file system that the container serves itself. Therefore
openat2(2) resolves the path with the container's root as its root: links stay inside
(RESOLVE_IN_ROOT), magic links are refused, and so are files below another mount
(RESOLVE_NO_XDEV). Only regular files are read, up to a limit.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import struct

from maceproc.recording.engines import Container, inspect
from maceproc.recording.inspected import Inspected

LIMIT_BYTES = 64 << 20

_SYS_OPENAT2 = 437  # on every architecture; include/uapi/asm-generic/unistd.h, since v5.6
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x01, 0x02, 0x10
_HOW = "QQQ"  # struct open_how: flags, mode, resolve; include/uapi/linux/openat2.h, v6.8
_READ_BYTES = 1 << 20


def file_digest(path: str) -> str:
    """Return the SHA-256 of one of this machine's files, in hex; empty when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return _digest(fd)
    finally:
        os.close(fd)


def container_digest(container: Container, program: str) -> str:
    """Return the SHA-256 of the file that a program of a container is; empty when not known."""
    described = inspect(container.engine, container.id)
    if not isinstance(described, Inspected):
        return ""
    places = [""] if "/" in program else described.search_path
    try:
        root = os.open(f"/proc/{container.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        for place in places:
            found = open_in_root(root, f"{place}/{program}")
            if found is not None:
                try:
                    return _digest(found)
                finally:
                    os.close(found)
    finally:
        os.close(root)
    return ""


def open_in_root(root: int, path: str) -> int | None:
    """Open a regular file for reading, with a directory's descriptor as the root of every path.

    None when there is none that can be opened without leaving that root and its file system.
    """
    how = struct.pack(
        _HOW,
        os.O_PATH | os.O_CLOEXEC,  # this does not open a pipe or a device
        0,
        _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT,
    )
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    held = libc.syscall(_SYS_OPENAT2, root, name, how, ctypes.c_size_t(len(how)))
    if held < 0:
        return None
    try:
        if not stat.S_ISREG(os.fstat(held).st_mode):
            return None
        return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(held)


def _digest(fd: int) -> str:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT_BYTES:
        return ""
    digest, left = hashlib.sha256(), LIMIT_BYTES
    while left > 0 and (piece := os.read(fd, min(_READ_BYTES, left))):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest() if left else ""
