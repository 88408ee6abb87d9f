"""The few functions of libbpf that are needed, through ctypes.

libbpf.so.1 is where iproute2 is: Debian's and Ubuntu's package depends on it. It loads a CO-RE
object, so that no compiler is needed. Signatures: libbpf.h, libbpf 1.1.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from maceproc.errors import TracingError

LIBRARY = "libbpf.so.1"
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_POINTER, _INT, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_mem": (_POINTER, [_TEXT, _SIZE, _POINTER]),
    "bpf_object__load": (_INT, [_POINTER]),
    "bpf_object__close": (None, [_POINTER]),
    "bpf_object__next_program": (_POINTER, [_POINTER, _POINTER]),
    "bpf_object__next_map": (_POINTER, [_POINTER, _POINTER]),
    "bpf_program__name": (_TEXT, [_POINTER]),
    "bpf_program__attach": (_POINTER, [_POINTER]),
    "bpf_link__destroy": (_INT, [_POINTER]),
    "bpf_map__name": (_TEXT, [_POINTER]),
    "bpf_map__fd": (_INT, [_POINTER]),
    "bpf_map__value_size": (ctypes.c_uint32, [_POINTER]),
    "libbpf_set_print": (_POINTER, [_POINTER]),
}
_LINES_KEPT = 400
_LOG_BYTES = 4 << 20
_C = ctypes.CDLL(None)
_PRINT = ctypes.CFUNCTYPE(_INT, _INT, _TEXT, _POINTER)


@cache
def _library() -> ctypes.CDLL:
    """Return libbpf with its signatures; TracingError where it is not installed."""
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise TracingError(
            f"{LIBRARY}: not found", hint="install it (Debian: apt install libbpf1)"
        ) from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def require_bpf() -> None:
    """Raise TracingError when this machine cannot load a CO-RE object: what is missing, and why."""
    if not KERNEL_BTF.exists():
        raise TracingError(
            f"{KERNEL_BTF}: this kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)",
            hint="`record --tracer ftrace` needs none of it",
        )
    _library()


class BpfObject:
    """A loaded object: its programs run while it is attached, and vanish with the process.

    Use it as a context manager. Raises TracingError in the words of libbpf and the kernel.
    """

    def __init__(self, image: bytes) -> None:
        """Load the programs of an object file's `image`."""
        require_bpf()
        self._library = _library()
        self._image = image  # libbpf keeps pointers into it
        self._links: dict[str, int] = {}
        self._said: list[str] = []
        self._refused = False
        self._print = _PRINT(self._hear)
        self._library.libbpf_set_print(ctypes.cast(self._print, _POINTER))
        self._object = self._library.bpf_object__open_mem(image, len(image), None)
        if not self._object:
            raise self._error("cannot be opened", ctypes.get_errno())
        status = self._library.bpf_object__load(self._object)
        if status:
            self.close()
            raise self._error("cannot be loaded", -status)

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def attach(self, programs: Collection[str]) -> None:
        """Let these programs run, and no others."""
        for name in [name for name in self._links if name not in programs]:
            self._library.bpf_link__destroy(self._links.pop(name))
        for program in self._each("program"):
            name = self._library.bpf_program__name(program).decode()
            if name not in programs or name in self._links:
                continue
            link = self._library.bpf_program__attach(program)
            if not link:
                number = ctypes.get_errno()
                self.detach()
                raise self._error(f"{name} cannot be attached", number)
            self._links[name] = link

    def detach(self) -> None:
        """Stop the programs."""
        while self._links:
            self._library.bpf_link__destroy(self._links.popitem()[1])

    def memory(self, section: str) -> mmap.mmap:
        """Return the memory that a data section (".bss") shares with the kernel.

        libbpf makes data sections arrays that can be mapped (BPF_F_MMAPABLE, Linux 5.5).
        """
        for found in self._each("map"):
            if self._library.bpf_map__name(found).decode().endswith(section):
                pages = -(-self._library.bpf_map__value_size(found) // mmap.PAGESIZE)
                return mmap.mmap(self._library.bpf_map__fd(found), pages * mmap.PAGESIZE)
        raise TracingError(f"the object has no section {section}")

    def close(self) -> None:
        """Stop the programs and free what they used; memory given before keeps its content."""
        self.detach()
        if self._object:
            self._library.bpf_object__close(self._object)
            self._object = None

    def _each(self, what: str) -> Iterator[int]:
        following = getattr(self._library, f"bpf_object__next_{what}")
        found = following(self._object, None)
        while found:
            yield found
            found = following(self._object, found)

    def _hear(self, _level: int, form: bytes, arguments: int) -> int:
        # A va_list is passed as a pointer on x86-64 and on arm64 (System V ABI, AAPCS64).
        self._refused |= b"BEGIN PROG LOAD LOG" in form
        text = ctypes.create_string_buffer(_LOG_BYTES if self._refused else 4096)
        _C.vsnprintf(text, len(text), form, _POINTER(arguments))
        self._said += text.value.decode(errors="replace").splitlines()
        del self._said[:-_LINES_KEPT]
        return 0

    def _error(self, what: str, number: int) -> TracingError:
        # The verifier's no is EACCES, too: without the rights nothing comes as far as to it.
        if self._refused:
            hint = "this kernel's verifier refuses it; `record --tracer ftrace` needs none of it"
        elif number in (errno.EPERM, errno.EACCES):
            hint = "it needs root with CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)"
        else:
            hint = "`record --tracer ftrace` needs none of it"
        return TracingError(f"the BPF tracer {what}: {os.strerror(number)}", hint=hint)
