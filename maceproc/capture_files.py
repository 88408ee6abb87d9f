"""The two files of a capture: find them, check that they belong together, read and write them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from maceproc.capture import SIDECAR_VERSION, Identity, Sidecar
from maceproc.errors import CaptureError
from maceproc.sidecar_checks import check_sidecar, read_bounded

SIDECAR_SUFFIX = ".json"
ECHOES_SUFFIX = ".echoes"  # of what the BPF tracer saw beside events
RECORDING_SUFFIX = ".recording"  # of the directory that a recording is made in

IDENTITY_BLOCKS = 16
IDENTITY_BLOCK_BYTES = 1 << 16


class Capture(msgspec.Struct, frozen=True):
    """A capture on disk: where the events are, and what the sidecar says (None without one)."""

    trace: Path
    sidecar: Sidecar | None

    def __hash__(self) -> int:
        """Hash by the trace's path: a sidecar holds lists, which have no hash."""
        return hash(self.trace)


def sidecar_path(trace: str | Path) -> Path:
    """Return where the sidecar of a trace file belongs: ``trace.dat`` -> ``trace.dat.json``."""
    return Path(f"{os.fspath(trace)}{SIDECAR_SUFFIX}")


def echoes_path(trace: str | Path) -> Path:
    """Return where the echoes are that were recorded beside events: ``trace.dat.echoes``."""
    return Path(f"{os.fspath(trace)}{ECHOES_SUFFIX}")


def recording_directory(trace: str | Path) -> Path:
    """Return where a trace is recorded: ``trace.dat`` -> the directory ``trace.dat.recording``."""
    return Path(f"{os.fspath(trace)}{RECORDING_SUFFIX}")


def open_capture(trace: str | Path) -> Capture:
    """Open a capture by its trace file; one recorded by hand has no sidecar.

    Raises CaptureError when the file is missing, or its sidecar cannot be understood or belongs to
    another trace.
    """
    path = Path(trace)
    check_is_trace(path)
    beside = sidecar_path(path)
    sidecar = load_sidecar(beside) if beside.exists() else None
    if sidecar and sidecar.trace and not belongs_to(sidecar.trace, path):
        raise CaptureError(
            f"{beside}: belongs to another trace than {path}, or that was changed since",
            hint="put the right two together, or remove the sidecar to analyze the events alone",
        )
    return Capture(path, sidecar)


def check_is_trace(path: Path) -> None:
    """Raise CaptureError unless `path` is a file that may be a trace: no directory, no sidecar."""
    if not path.exists():
        hint = "give the trace.dat that `maceproc record` or trace-cmd wrote"
        if recording_directory(path).is_dir():
            hint = f"its recording goes on or was killed: then `maceproc salvage {path}`"
        raise CaptureError(f"{path}: no such file", hint=hint)
    if path.is_dir() and not (path / "data").is_file():  # perf record --threads makes a directory
        inside = sorted(file.name for file in path.glob("*.dat"))
        hint = f"give a trace in it, such as {path / inside[0]}" if inside else "give a trace.dat"
        raise CaptureError(f"{path}: is a directory", hint=hint)
    if not path.is_file() and not path.is_dir():
        raise CaptureError(f"{path}: not a regular file", hint="copy it to one, and give that")
    if not os.access(path, os.R_OK):
        raise CaptureError(
            f"{path}: you may not read it",
            hint=f"it was recorded by another user; `sudo chown $USER {path}*` makes it yours",
        )
    trace = path.with_suffix("")
    if path.suffix == SIDECAR_SUFFIX and trace.is_file():
        raise CaptureError(f"{path}: is the sidecar of a trace", hint=f"give the trace: {trace}")


def identify(trace: Path) -> Identity:
    """Return what tells this trace file from any other; OSError when it cannot be read."""
    size = trace.stat().st_size
    return Identity(size=size, blocks=_block_digests(trace, size, size))


def belongs_to(identity: Identity, trace: Path) -> bool:
    """Tell whether a trace file is the one identified, or the beginning of it."""
    present = trace.stat().st_size
    found = _block_digests(trace, identity.size, present)
    return present <= identity.size and found == identity.blocks[: len(found)]


def _block_digests(trace: Path, size: int, present: int) -> list[str]:
    """Digest blocks spread over a file of this size, as far as they are present [bytes]."""
    last = max(size - IDENTITY_BLOCK_BYTES, 0)
    digests = []
    with trace.open("rb") as file:
        for number in range(IDENTITY_BLOCKS):
            start = last * number // (IDENTITY_BLOCKS - 1)
            if min(start + IDENTITY_BLOCK_BYTES, size) > present:
                break
            file.seek(start)
            digests.append(hashlib.sha256(file.read(IDENTITY_BLOCK_BYTES)).hexdigest()[:16])
    return digests


def load_sidecar(path: Path) -> Sidecar:
    """Read a sidecar; CaptureError names the file and the place in it that is wrong."""
    try:
        sidecar = msgspec.json.decode(read_bounded(path), type=Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CaptureError(
            f"{path}: not a capture's sidecar: {error}",
            hint="remove it to analyze the events alone, with --inner and --outer",
        ) from error
    if sidecar.version > SIDECAR_VERSION:
        raise CaptureError(
            f"{path}: sidecar version {sidecar.version}, this maceproc reads {SIDECAR_VERSION}",
            hint="upgrade maceproc",
        )
    check_sidecar(path, sidecar)
    return sidecar


def save_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write a sidecar whole or not at all: to a new file beside it, then renamed.

    Only its owner may read it. Raises CaptureError when it cannot be written.
    """
    # omit_defaults leaves out the two fields that say what the file is.
    identity = {"format": sidecar.format, "version": sidecar.version}
    document = identity | msgspec.to_builtins(sidecar)
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_as_unicode(document))
    text = msgspec.json.format(encoded, indent=1) + b"\n"
    try:
        # A name that nobody can guess, made with O_EXCL and O_NOFOLLOW: no link is followed.
        descriptor, partial = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CaptureError(f"{path}: cannot write the sidecar: {error.strerror}") from error


def _as_unicode(value: Any) -> Any:
    """Return a document with bytes that are not UTF-8 (PEP 383) escaped: JSON cannot have them."""
    if isinstance(value, str):
        return os.fsencode(value).decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_as_unicode(key): _as_unicode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_unicode(item) for item in value]
    return value
