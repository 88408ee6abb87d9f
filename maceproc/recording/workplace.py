"""A private directory beside the output: a recording is made in it, and moved out when complete.

Whoever may write to the output's directory may plant links there. Nothing is written through them:
the directory is new and for its owner alone, every file is made in it, and the finished files are
renamed, which replaces a link and does not follow it.

The directory is also the claim on the output's name: making it is atomic, so a second recorder
with the same name is refused. A lock on it, which trace-cmd inherits, tells whether anybody still
writes in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from pathlib import Path

from maceproc.capture import Sidecar
from maceproc.capture_files import (
    echoes_path,
    recording_directory,
    save_sidecar,
    sidecar_path,
)
from maceproc.errors import CaptureError
from maceproc.recording import ring
from maceproc.recording.remains import forget, recorded_trace, stale_instances
from maceproc.recording.tracing import TRACEFS
from maceproc.recording.written import holds_events, pieces_of

INSTANCES = TRACEFS / "instances"
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Workplace:
    """The private directory of one output; the context manager removes it unless it holds data.

    `trace`, `sidecar` and `echoes` are where the recording writes; `publish` moves them to the
    output.
    """

    def __init__(self, output: Path, *, force: bool = False) -> None:
        """Prepare for an output; with `force` the remains of a killed recording are discarded."""
        self.output = output
        self.directory = recording_directory(output)
        self.trace = self.directory / output.name
        self.sidecar = sidecar_path(self.trace)
        self.echoes = echoes_path(self.trace)  # where both tracers record
        self.keep = False  # it holds pieces that only salvage can join to a trace
        self._force = force
        self._lock = -1

    def __enter__(self) -> Workplace:
        """Claim the output; CaptureError when it is claimed already, or cannot be written."""
        while not self._is_ours():
            self._close()
            try:
                self.directory.mkdir(mode=0o700)
            except FileExistsError:
                pass
            except OSError as error:
                raise CaptureError(
                    f"{self.output}: cannot be written: {error.strerror}",
                    hint="choose another place with -o",
                ) from error
            self._lock = self._locked()
        try:
            self._empty()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)
        self._close()

    @property
    def lock(self) -> int:
        """The descriptor whose lock says that the recording goes on; trace-cmd inherits it."""
        return self._lock

    def _is_ours(self) -> bool:
        """Tell whether we hold the lock of the directory, and it still has its name."""
        if self._lock < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._lock), self.directory.lstat())
        except FileNotFoundError:  # its owner has just removed it
            return False

    def _locked(self) -> int:
        """Lock the directory; -1 when its owner has just removed it."""
        try:
            lock = lock_abandoned(self.directory)
        except CaptureError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return -1
            raise
        if lock is None:
            raise CaptureError(
                f"{self.output}: is being recorded by another process ({self.directory})",
                hint="choose another name with -o, or wait for its end",
            )
        return lock

    def _empty(self) -> None:
        """Remove what a killed recording left, if it has no events or `force` was given."""
        left = list(os.scandir(self._lock))
        if left and not self._force and self._left_events():
            raise CaptureError(
                f"{self.directory}: holds what a killed recording of {self.output.name} left",
                hint=f"`maceproc salvage {self.output}` makes a capture of it; --force discards it",
            )
        for entry in left:
            os.unlink(entry.name, dir_fd=self._lock)
        for instance in self._stale_instances():  # the events in its ring buffer are not wanted
            forget(instance)

    def _left_events(self) -> bool:
        """Tell whether a killed recording left events, on disk or in the kernel's ring buffers."""
        if holds_events(self.trace):
            return True
        for name in self._stale_instances():
            with contextlib.suppress(OSError):
                if any(count.unread for count in ring.counts(INSTANCES / name).values()):
                    return True
        return False

    def _stale_instances(self) -> list[str]:
        """Return the instances that killed recordings of this output left."""
        trace = self.trace.absolute()
        return [name for name in stale_instances() if recorded_trace(name) == trace]

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save(self, sidecar: Sidecar) -> None:
        """Write the sidecar, and move both files to the output.

        Where pieces are still to be joined they stay, and `keep` is set; the sidecar may be
        missing then. Raises CaptureError when something cannot be written.
        """
        self.keep = bool(pieces_of(self.trace))
        try:
            save_sidecar(self.sidecar, sidecar)
        except CaptureError:
            if not self.keep:
                self.keep = self.trace.exists()
                raise
        self.publish()

    def publish(self) -> None:
        """Move everything to the output, unless there are pieces still to be joined.

        The trace goes before the sidecar: until that follows, the directory still has it. Raises
        CaptureError when they cannot be moved; then they stay.
        """
        self.keep = bool(pieces_of(self.trace))
        if self.keep or not self.trace.exists():
            return
        try:
            if self.echoes.exists():
                move_out(self.echoes, echoes_path(self.output), replace=self._force)
            move_out(self.trace, self.output, replace=self._force)
            if self.sidecar.exists():
                move_out(self.sidecar, sidecar_path(self.output), replace=self._force)
        except CaptureError:
            self.keep = True
            raise


def move_out(source: Path, target: Path, *, replace: bool = False) -> None:
    """Move a finished file out of the private directory; CaptureError when that cannot be done.

    Only its owner may read it: the user who called sudo, where sudo was used.
    """
    if os.path.lexists(target) and not replace:
        raise CaptureError(
            f"{target}: was made by somebody else meanwhile",
            hint=f"the capture is in {source.parent}",
        )
    try:
        file = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(file, 0o600)
            user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
            if user.isdigit() and group.isdigit() and os.geteuid() == 0:
                os.fchown(file, int(user), int(group))
        finally:
            os.close(file)
        source.rename(target)
    except OSError as error:
        raise CaptureError(
            f"{target}: {error.strerror}", hint=f"the capture is in {source.parent}"
        ) from error


def lock_abandoned(directory: Path) -> int | None:
    """Lock the directory of a recording that nobody works on; None when somebody does.

    Raises CaptureError when another user made the directory or may write to it: its content cannot
    be trusted.
    """
    try:
        file = os.open(directory, _FLAGS)
    except OSError as error:
        raise CaptureError(
            f"{directory}: {error.strerror}", hint="remove it, or choose another -o"
        ) from error
    status = os.fstat(file)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(file)
        raise CaptureError(
            f"{directory}: exists, and is not a recording's", hint="choose another name with -o"
        )
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    os.close(file)
    return None
