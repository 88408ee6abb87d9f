"""The eBPF programs that are attached to network devices by links of the kernel's (tcx, netkit).

tc(8) does not show these. The kernel numbers all links of the machine; that needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

from maceproc.recording.bpf.libbpf import LIBRARY

# enum bpf_link_type and struct bpf_link_info, include/uapi/linux/bpf.h, v6.7
_KINDS = {6: "XDP", 11: "tcx", 13: "netkit program"}
_TYPE, _IFINDEX = 0, 4  # places of 32-bit words; after id, prog_id and padding comes the union
_WORDS = 64
_MOST = 10_000  # links that are looked at


def devices_with_links() -> dict[int, list[str]]:
    """Return which kinds of programs are linked to devices, by the device's number.

    The number is that in the device's own namespace, and the kernel does not say which that is. So
    a device of another namespace with the same number may be meant. Empty where the kernel does
    not tell, or libbpf is not there.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return {}
    found: dict[int, list[str]] = {}
    for fd in _links(library):
        words = (ctypes.c_uint32 * _WORDS)()
        size = ctypes.c_uint32(ctypes.sizeof(words))
        try:
            told = library.bpf_obj_get_info_by_fd(fd, words, ctypes.byref(size)) == 0
        finally:
            os.close(fd)
        kind = _KINDS.get(words[_TYPE]) if told else None
        if kind is not None and kind not in found.setdefault(words[_IFINDEX], []):
            found[words[_IFINDEX]].append(kind)
    return found


def _links(library: ctypes.CDLL) -> Iterator[int]:
    """Yield a file descriptor of every link; whoever takes it closes it."""
    number = ctypes.c_uint32(0)
    for _ in range(_MOST):
        if library.bpf_link_get_next_id(number, ctypes.byref(number)) != 0:
            return
        fd = library.bpf_link_get_fd_by_id(number)
        if fd >= 0:  # it may have ended in between
            yield fd
