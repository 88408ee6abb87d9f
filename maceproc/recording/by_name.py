"""`maceproc.record`: record a command in a place given by name, as on the command line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast, get_args

from maceproc.calibration import Calibration, load_calibration
from maceproc.capture_files import Capture
from maceproc.errors import TargetError
from maceproc.recording import sites
from maceproc.recording.lab import DEFAULT_NAME, Lab, RemoteKind, is_complete, usual_remote
from maceproc.recording.options import Tracer
from maceproc.recording.record import record as record_at


def record(
    command: str | Sequence[str],
    output: str | os.PathLike[str] = "trace.dat",
    *,
    container: str = "",
    host_ping: bool = False,
    lab: bool | str | Lab = False,
    remote: RemoteKind | None = None,
    netns: str = "",
    pid: int | None = None,
    host: bool = False,
    native: sites.NativeChoice = "",
    rounds: int = 5,
    baseline: bool = True,
    events: str = "minimal",
    tracer: Tracer = "ftrace",
    buffer_kb: int | None = None,
    calibration: str | os.PathLike[str] | Calibration | None = None,
    outer: str = "",
    awake: bool = False,
    force: bool = False,
    **others: str,
) -> Capture:
    """Record a command, usually ping, beside the kernel's net events; return the capture.

    >>> capture = maceproc.record("ping -c 100 192.0.2.1", container="web")  # doctest: +SKIP
    >>> maceproc.analyze(capture.trace).rtts                                 # doctest: +SKIP

    It needs root. Without a place the command runs here, as a native ping. Raises TargetError when
    more than one place is named or the place is not there, ValueError when arguments do not go
    together, CaptureError when the calibration cannot be read, and what
    `maceproc.recording.record.record` raises.

    Parameters
    ----------
    command
        A command line, as words or as one text that is split as a shell does.
    output
        Where the trace goes; its sidecar is beside it.
    container
        A container of Docker, Podman or containerd, by name or id.
    host_ping
        With `container` or ``compose``: run this machine's ping in the container's network, not the
        container's own.
    lab
        True: the lab that is up, or one that is made for this and removed afterwards. Or a lab, or
        the name of one.
    remote
        What answers in a lab that is made: ``kernel``, this kernel's own stack, or ``program``, one
        that spins on a CPU of its own. By default a program where there are two CPUs.
    netns, pid, host
        A network namespace by name or file; the one of a process; the one of this machine.
    native
        What runs from the host in place of a container's program: ``host``, this machine's, or
        ``image``, the container's image, which then sees the host's network.
    rounds
        Runs per arm.
    calibration
        A calibration or its file: it is kept in the sidecar, and used by the analysis.
    baseline, events, tracer, buffer_kb, outer, awake, force
        As in `maceproc.recording.options.Options`. `events` and `buffer_kb` do not go with the
        tracer ``bpf``.
    others
        Another kind of place, with its name: ``compose``, ``pod``, ``lxc``, ``machine`` or
        ``unit``, as the options of these names.
    """
    argv = shlex.split(command) if isinstance(command, str) else list(command)
    named = {"container": container, "netns": netns, **others}
    named = {kind: name for kind, name in named.items() if name}
    _check(tracer, events, buffer_kb, host_ping and not named.keys() & {"container", "compose"})
    if calibration is not None and not isinstance(calibration, Calibration):
        calibration = load_calibration(os.fspath(calibration))
    place = _Place(named, lab, pid, host, host_ping, native, remote)
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


def _check(tracer: str, events: str, buffer_kb: int | None, host_ping_alone: bool) -> None:
    """Raise ValueError when arguments do not go together."""
    if tracer not in get_args(Tracer):
        raise ValueError(f"tracer is {tracer!r}; expected one of {', '.join(get_args(Tracer))}")
    if tracer == "bpf" and (events != "minimal" or buffer_kb is not None):
        raise ValueError("events and buffer_kb do not go with tracer='bpf'")
    if host_ping_alone:
        raise ValueError("host_ping goes with container or compose")


class _Place(NamedTuple):
    named: dict[str, str]
    lab: bool | str | Lab
    pid: int | None
    host: bool
    host_ping: bool
    native: sites.NativeChoice
    remote: RemoteKind | None


@contextmanager
def _site(place: _Place) -> Iterator[sites.Site]:
    """Give the one place that is named; TargetError when there are several."""
    if len(place.named) + sum((bool(place.lab), place.pid is not None, place.host)) > 1:
        raise TargetError("more than one place is named", hint="give one of them")
    if isinstance(place.lab, Lab):
        yield sites.lab_site(place.lab)
    elif place.lab:
        with some_lab("" if place.lab is True else place.lab, remote=place.remote) as lab:
            yield sites.lab_site(lab)
    elif place.pid is not None:
        yield sites.pid_site(place.pid)
    for kind, name in place.named.items():
        yield sites.named_site(_known(kind), name, host_ping=place.host_ping, native=place.native)
    if not (place.named or place.lab or place.pid is not None):
        yield sites.here_site("host" if place.host else "here", native=place.native)


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


def _known(kind: str) -> sites.NamedKind:
    """Return a kind of place; TypeError for another word, as for any unknown argument."""
    if kind not in get_args(sites.NamedKind):
        raise TypeError(f"record() got an unexpected keyword argument {kind!r}")
    return cast("sites.NamedKind", kind)
