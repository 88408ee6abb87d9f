"""Every way maceproc can fail.

    MaceprocError                 catch this one to catch all
    ├── TraceFormatError          a trace file that cannot be read: file, offset, found, expected
    ├── CaptureError              a capture on disk that is missing, incomplete or not ours
    ├── AnalysisError             events that do not allow the analysis asked for
    ├── LabError                  the lab of namespaces could not be made or removed
    ├── Fault                     maceproc itself is wrong: a bug to report
    └── RecordError               a recording that could not be made
        ├── PrivilegeError        not root, or a capability is missing
        ├── TracingError          tracefs, trace-cmd or an event is not available
        ├── TargetError           no such container, namespace, process or device
        ├── CommandError          the recorded command is missing or failed
        │   └── NoReply           no ping in the container got a reply; the capture is kept
        └── Interrupted           Ctrl-C or SIGTERM; what was recorded is kept

Every error says what happened and where (``message``) and what to do next (``hint``). The library
raises; only the command line turns an error into one line and an exit status.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MESSAGE_LENGTH = 500  # so much of an exception's own words is told [characters]


class MaceprocError(Exception):
    """Base of all errors: `message` says what and where, `hint` what to do next."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling __init__, which has keyword arguments: errors pass between processes.
        return _restored, (type(self), self.args), self.__dict__


def as_error(error: Exception, where: str = "") -> MaceprocError:
    """Return an exception as one of ours: itself, what the system says, or a Fault.

    `where` names what was worked on, such as a file.
    """
    if isinstance(error, MaceprocError):
        return error
    if isinstance(error, MemoryError):
        message = f"{where or 'maceproc'}: not enough memory"
        found: MaceprocError = MaceprocError(message, hint="use a machine with more of it")
    elif isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        place = " -> ".join(names) or where or "input or output"
        found = MaceprocError(f"{place}: {error.strerror}")
    else:
        said = " ".join(str(error).split())[:MESSAGE_LENGTH]
        place = f"{where}: " if where else ""
        found = Fault(
            f"{place}this is a bug in maceproc: {type(error).__name__}: {said}",
            hint="MACEPROC_DEBUG=1 in the environment shows where; please report it",
        )
    found.__cause__ = error
    return found


def _restored(kind: type[MaceprocError], args: tuple[Any, ...]) -> MaceprocError:
    return kind.__new__(kind, *args)


class TraceFormatError(MaceprocError):
    """A file that is not a readable trace: names file, offset [bytes], found and expected."""

    def __init__(
        self,
        file: str | Path,
        *,
        offset: int | None,
        found: str,
        expected: str,
        hint: str = "",
    ) -> None:
        where = f"{file}" if offset is None else f"{file}, byte {offset}"
        super().__init__(f"{where}: found {found}, expected {expected}", hint=hint)
        self.file = Path(file)
        self.offset = offset
        self.found = found
        self.expected = expected


class CaptureError(MaceprocError):
    """A capture on disk that is missing, incomplete, or whose sidecar cannot be understood."""


class AnalysisError(MaceprocError):
    """Events that do not allow the analysis asked for."""


class LabError(MaceprocError):
    """The lab of namespaces could not be made or removed."""


class Fault(MaceprocError):  # noqa: N818  the user made no error
    """maceproc itself is wrong: an exception that nobody expected; it is the `__cause__`."""

    exit_status = 70  # EX_SOFTWARE, sysexits.h


class RecordError(MaceprocError):
    """A recording that could not be made."""


class PrivilegeError(RecordError):
    """Recording needs root (CAP_SYS_ADMIN, for tracefs and namespaces)."""

    exit_status = 77  # EX_NOPERM, sysexits.h


class TracingError(RecordError):
    """The kernel's tracing system, trace-cmd or an event is not available."""

    exit_status = 69  # EX_UNAVAILABLE, sysexits.h


class TargetError(RecordError):
    """The container, namespace, process or device named does not exist or cannot be used."""

    exit_status = 68  # EX_NOHOST, sysexits.h


class CommandError(RecordError):
    """The recorded command is missing, or failed; its own words are in the message."""


class NoReply(CommandError):  # noqa: N818  a path without replies is a result as well
    """No ping of the recording got a reply; what was recorded is kept and can be analyzed."""


class Interrupted(RecordError):  # noqa: N818  an interruption is not an error of the program
    """Ctrl-C or SIGTERM during a recording; what was recorded until then is kept."""

    def __init__(self, message: str, *, signal_number: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_status = 128 + signal_number  # as a shell reports it
