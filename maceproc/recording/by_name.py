"""`maceproc.record`: record a command in a place given by name, as on the command line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict, Unpack, get_args

from maceproc.calibration import Calibration, load_calibration
from maceproc.capture_files import Capture
from maceproc.errors import TargetError
from maceproc.recording import sites
from maceproc.recording.lab import DEFAULT_NAME, Lab, RemoteKind, is_complete, usual_remote
from maceproc.recording.options import Tracer
from maceproc.recording.record import record as record_at


class Place(TypedDict, total=False):
    """Where a command runs: one place, by one of these names; none of them: here."""

    container: str
    """A container of Docker, Podman or containerd, by name or id."""

    compose: str
    pod: str
    lxc: str
    machine: str
    unit: str
    """Other kinds of places, by name, as the options of these names."""

    netns: str
    """A network namespace, by name or file."""

    pid: int | None
    """The network namespace of a process."""

    host: bool
    """This machine's own network: a native ping."""

    lab: bool | str | Lab
    """True: the lab that is up, or one that is made for this and removed afterwards. Or a lab, or
    the name of one."""

    remote: RemoteKind | None
    """What answers in a lab that is made: ``kernel``, this kernel's own stack, or ``program``, one
    that spins on a CPU of its own. By default a program where there are two CPUs."""

    host_ping: bool
    """With `container` or `compose`: run this machine's ping in the container's network, not the
    container's own."""

    native: sites.NativeChoice
    """What runs from the host in place of a container's program: ``host``, this machine's, or
    ``image``, the container's image, which then sees the host's network."""


def record(
    command: str | Sequence[str],
    output: str | os.PathLike[str] = "trace.dat",
    *,
    rounds: int = 5,
    baseline: bool = True,
    events: str = "minimal",
    tracer: Tracer = "ftrace",
    buffer_kb: int | None = None,
    calibration: str | os.PathLike[str] | Calibration | None = None,
    outer: str = "",
    awake: bool = False,
    force: bool = False,
    **place: Unpack[Place],
) -> Capture:
    """Record a command, usually ping, beside the kernel's net events; return the capture.

    >>> capture = maceproc.record("ping -c 100 192.0.2.1", container="web")  # doctest: +SKIP
    >>> maceproc.analyze(capture.trace).rtts                                 # doctest: +SKIP

    It needs root. `command` is words, or one text that is split as a shell does; the trace goes to
    `output`, and its sidecar beside it. `place` says where the command runs: see `Place`.
    `calibration` may be a file. The other parameters are those of
    `maceproc.recording.options.Options`.

    Raises TargetError when more than one place is named or the place is not there, ValueError when
    arguments do not go together, CaptureError when the calibration cannot be read, and what
    `maceproc.recording.record.record` raises.
    """
    argv = shlex.split(command) if isinstance(command, str) else list(command)
    _check(tracer, events, buffer_kb, place)
    if calibration is not None and not isinstance(calibration, Calibration):
        calibration = load_calibration(os.fspath(calibration))
    with _site(place) as site:
        return record_at(
            argv,
            site,
            os.fspath(output),
            rounds=rounds,
            baseline=baseline,
            events=events,
            tracer=tracer,
            buffer_kb=buffer_kb,
            calibration=calibration,
            outer=outer,
            awake=awake,
            force=force,
        )


def _check(tracer: str, events: str, buffer_kb: int | None, place: Place) -> None:
    """Raise ValueError when arguments do not go together, TypeError for one that there is not."""
    for name in place:
        if name not in Place.__annotations__:
            raise TypeError(f"record() got an unexpected keyword argument {name!r}")
    if tracer not in get_args(Tracer):
        raise ValueError(f"tracer is {tracer!r}; expected one of {', '.join(get_args(Tracer))}")
    if tracer == "bpf" and (events != "minimal" or buffer_kb is not None):
        raise ValueError("events and buffer_kb do not go with tracer='bpf'")
    if place.get("host_ping") and not (place.get("container") or place.get("compose")):
        raise ValueError("host_ping goes with container or compose")


@contextmanager
def _site(place: Place) -> Iterator[sites.Site]:
    """Give the one place that is named; TargetError when there are several."""
    found: dict[sites.NamedKind, str] = {
        kind: str(name) for kind in get_args(sites.NamedKind) if (name := place.get(kind))
    }
    lab, pid, host = place.get("lab", False), place.get("pid"), place.get("host", False)
    native = place.get("native", "")
    if len(found) + sum((bool(lab), pid is not None, host)) > 1:
        raise TargetError("more than one place is named", hint="give one of them")
    if isinstance(lab, Lab):
        yield sites.lab_site(lab)
    elif lab:
        with some_lab("" if lab is True else lab, remote=place.get("remote")) as made:
            yield sites.lab_site(made)
    elif pid is not None:
        yield sites.pid_site(pid)
    elif found:
        ((kind, name),) = found.items()
        host_ping = place.get("host_ping", False)
        yield sites.named_site(kind, name, host_ping=host_ping, native=native)
    else:
        yield sites.here_site("host" if host else "here", native=native)


@contextmanager
def some_lab(
    name: str = "", *, containers: int = 1, remote: RemoteKind | None = None
) -> Iterator[Lab]:
    """Give the lab of a name; without a name the one that is up, or one just for this context.

    A lab that is made has `containers` containers and a `remote` (None: the usual one).
    """
    if name or is_complete(Lab(DEFAULT_NAME).existing()):
        yield Lab(name or DEFAULT_NAME)
        return
    with Lab(containers=containers, remote=remote or usual_remote()) as made:
        yield made
