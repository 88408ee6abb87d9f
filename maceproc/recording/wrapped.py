"""Programs that run another one: those that only prepare it, and those that move it elsewhere.

``nice ping ...`` becomes the ping, in the same place, so it is accepted. ``kubectl exec`` and the
like run the ping somewhere else, or as a child process: recorded like this, the ping would be taken
for one that runs here. So they are refused, and the error tells how to record the same ping.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maceproc.errors import CommandError
from maceproc.recording.engines import ENGINES


class Wrapper(NamedTuple):
    """How many words a program takes itself, before the command that it runs."""

    short: str  # options, as getopt(3) takes them
    long: tuple[str, ...]
    operands: int = 0  # words of its own after the options


# They execute the command in their own process: the pid stays. coreutils 9.1, util-linux 2.38
UNDERSTOOD = {
    "nice": Wrapper("n:", ("adjustment=",)),
    "stdbuf": Wrapper("i:o:e:", ("input=", "output=", "error=")),
    "taskset": Wrapper("ac", ("all-tasks", "cpu-list"), operands=1),
    "chrt": Wrapper(
        "bdfiorRT:P:D:", ("batch", "deadline", "fifo", "idle", "other", "rr"), operands=1
    ),
    "ionice": Wrapper("c:n:t", ("class=", "classdata=", "ignore")),
    "env": Wrapper("iu:C:", ("ignore-environment", "unset=", "chdir=")),
}

_AS_ROOT = "maceproc is root already: leave it out"
_OF_A_POD = "on its node, --pod [NAMESPACE/]NAME records in the pod's network"
_OF_LXC = "--lxc NAME records in the container's network"
_OF_A_MACHINE = "--machine NAME records in the container's network"
_OF_COMPOSE = "--compose SERVICE records in the service's container"
_OF_A_NAMESPACE = "--netns NAME and --pid PID run the command in a network namespace"
_LEAVE_OUT = "it runs the command as a child: leave it out"

REFUSED = {
    "sudo": _AS_ROOT,
    "doas": _AS_ROOT,
    "su": _AS_ROOT,
    "runuser": _AS_ROOT,
    "setpriv": _AS_ROOT,
    "capsh": _AS_ROOT,
    "timeout": "it runs the command as a child: `ping -w SECONDS` ends by itself",
    "time": _LEAVE_OUT,
    "watch": _LEAVE_OUT,
    "script": _LEAVE_OUT,
    "unbuffer": "it runs the command as a child: `stdbuf -oL` is understood",
    "flock": "start maceproc itself with flock",
    "xargs": "start maceproc itself with xargs",
    "nohup": "start maceproc itself with nohup",
    "setsid": "start maceproc itself with setsid",
    "strace": "it changes what is measured: leave it out",
    "ltrace": "it changes what is measured: leave it out",
    "perf": "it changes what is measured: leave it out",
    "chroot": "the command's files are not its network: leave it out",
    "unshare": _OF_A_NAMESPACE,
    "nsenter": _OF_A_NAMESPACE,
    "bwrap": _OF_A_NAMESPACE,
    "firejail": _OF_A_NAMESPACE,
    "ip": _OF_A_NAMESPACE,
    "kubectl": _OF_A_POD,
    "oc": _OF_A_POD,
    "k3s": _OF_A_POD,
    "microk8s": _OF_A_POD,
    "crictl": _OF_A_POD,
    "ctr": "--pid takes the pid that `ctr task ls` tells of the container",
    "runc": "--pid takes the pid that `runc list` tells of the container",
    "crun": "--pid takes the pid that `crun list` tells of the container",
    "docker-compose": _OF_COMPOSE,
    "podman-compose": _OF_COMPOSE,
    "lxc-attach": _OF_LXC,
    "lxc-execute": _OF_LXC,
    "lxc": _OF_LXC,
    "incus": _OF_LXC,
    "machinectl": _OF_A_MACHINE,
    "systemd-nspawn": _OF_A_MACHINE,
    "systemd-run": "--unit NAME records in the network of a unit that runs",
    "ssh": "start maceproc on that machine",
}
# Only these verbs run a command; with any other verb the program is recorded as it is.
_VERBS = {"ip": {"netns", "vrf"}}

_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")


def prefix_length(argv: Sequence[str]) -> int:
    """Return how many words of a command line belong to wrappers that are understood.

    Raises CommandError for a wrapper that is refused, or options that are not known.
    """
    at = 0
    while at < len(argv):
        name = Path(argv[at]).name
        _refuse(name, argv[at:], wrapped=at > 0)
        if name not in UNDERSTOOD:
            break
        at += _own_words(name, list(argv[at:]))
    if at and at >= len(argv):
        raise CommandError(f"{' '.join(argv)}: the command is missing")
    return at


def _refuse(name: str, argv: Sequence[str], *, wrapped: bool) -> None:
    if name in ENGINES and wrapped:
        raise CommandError(
            f"{name} is not understood behind another program", hint=f"begin with {name}"
        )
    if name not in REFUSED:
        return
    verbs = _VERBS.get(name)
    if verbs and not verbs & set(argv[1:]):
        return
    raise CommandError(
        f"{name} runs the command elsewhere or as its child, where a recording does not find it",
        hint=REFUSED[name],
    )


def _own_words(name: str, argv: list[str]) -> int:
    """Return how many words are a wrapper's own: its name, options and operands."""
    wrapper = UNDERSTOOD[name]
    try:
        _, rest = getopt.getopt(argv[1:], wrapper.short, list(wrapper.long))
    except getopt.GetoptError as error:
        raise CommandError(
            f"{name}: {error.msg}", hint="leave it out, or start maceproc itself with it"
        ) from error
    used = len(argv) - len(rest) + wrapper.operands
    while name == "env" and used < len(argv) and _ASSIGNMENT.match(argv[used]):
        used += 1
    return used
