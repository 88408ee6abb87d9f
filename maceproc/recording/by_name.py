"""`maceproc.record`: record a command in a place given by name, as on the command line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast, get_args

from maceproc.capture_files import Capture
from maceproc.errors import TargetError
from maceproc.recording import sites
from maceproc.recording.lab import Lab
from maceproc.recording.record import record as record_at


def record(
    command: str | Sequence[str],
    output: str | os.PathLike[str] = "trace.dat",
    *,
    container: str = "",
    lab: bool | str | Lab = False,
    netns: str = "",
    pid: int | None = None,
    host: bool = False,
    rounds: int = 5,
    baseline: bool = True,
    events: str = "minimal",
    outer: str = "",
    awake: bool = False,
    force: bool = False,
    **others: str,
) -> Capture:
    """Record a command, usually ping, beside the kernel's net events; return the capture.

    >>> capture = maceproc.record("ping -c 100 192.0.2.1", container="web")  # doctest: +SKIP
    >>> maceproc.analyze(capture.trace).rtts                                 # doctest: +SKIP

    It needs root. Without a place the command runs here, as a native ping. Raises TargetError when
    more than one place is named or the place is not there, and what
    `maceproc.recording.record.record` raises.

    Parameters
    ----------
    command
        A command line, as words or as one text that is split as a shell does.
    output
        Where the trace goes; its sidecar is beside it.
    container
        A container of Docker, Podman or containerd, by name or id.
    lab
        True: a lab that is made for this and removed afterwards. Or a lab, or the name of one.
    netns, pid, host
        A network namespace by name or file; the one of a process; the one of this machine.
    rounds
        Runs per arm.
    baseline, events, outer, awake, force
        As in `maceproc.recording.options.Options`.
    others
        Another kind of place, with its name: ``compose``, ``pod``, ``lxc``, ``machine`` or
        ``unit``, as the options of these names.
    """
    argv = shlex.split(command) if isinstance(command, str) else list(command)
    named = {"container": container, "netns": netns, **others}
    with _site({kind: name for kind, name in named.items() if name}, lab, pid, host) as site:
        return record_at(
            argv,
            site,
            os.fspath(output),
            rounds=rounds,
            baseline=baseline,
            events=events,
            outer=outer,
            awake=awake,
            force=force,
        )


@contextmanager
def _site(
    named: dict[str, str], lab: bool | str | Lab, pid: int | None, host: bool
) -> Iterator[sites.Site]:
    """Give the one place that is named; TargetError when there are several."""
    if len(named) + sum((bool(lab), pid is not None, host)) > 1:
        raise TargetError("more than one place is named", hint="give one of them")
    if lab is True:
        with Lab() as made:
            yield sites.lab_site(made)
    elif lab:
        yield sites.lab_site(lab if isinstance(lab, Lab) else Lab(lab))
    elif pid is not None:
        yield sites.pid_site(pid)
    for kind, name in named.items():
        yield sites.named_site(_known(kind), name)
    if not (named or lab or pid is not None):
        yield sites.here_site("host" if host else "here")


def _known(kind: str) -> sites.NamedKind:
    """Return a kind of place; TypeError for another word, as for any unknown argument."""
    if kind not in get_args(sites.NamedKind):
        raise TypeError(f"record() got an unexpected keyword argument {kind!r}")
    return cast("sites.NamedKind", kind)
