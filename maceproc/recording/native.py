"""The native control of a container's ping: which program runs from the host, and how it differs.

A container's program never runs outside its container: otherwise the owner of the container would
be root on this machine. So the control is this machine's own ping, which is also the ping that
`native_rtt_ns` describes. Where the user asks for it, the control is the container's image on the
host's network. The image is not the default, although it has the same program: on the host's
network it could listen to the host's packets and reach the services that trust 127.0.0.1, which its
container cannot.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from maceproc.capture import NativeProgram
from maceproc.recording.bounded import run_bounded
from maceproc.recording.command import Command, version_text
from maceproc.recording.container_files import container_digest, file_digest
from maceproc.recording.entrances import EngineExec
from maceproc.recording.sites import Netns, Site

PROBES = 3
_OTHERWISE = "--native image runs the container's image on the host's network"


def why_no_program(site: Site, command: Command) -> str:
    """Return why no program of the host can replace a container's; empty when one can."""
    if site.own_programs is None or site.native == "image":
        return ""
    if command.prefix:
        # Only the first word is looked up. A wrapper could execute any file, so it is refused.
        return f"{command.argv[0]} is not run natively; start maceproc itself with it"
    name = Path(command.argv[0]).name
    if shutil.which(name) is None:
        return f"this machine has no {name}; {_OTHERWISE}"
    if not command.is_ping and site.native != "host":
        return (
            f"{name} is not a ping, so this machine's {name} is not run without being asked for; "
            f"--native host runs it, {_OTHERWISE}"
        )
    return ""


def why_no_reply(site: Site, host: Netns, command: Command, address: str) -> str:
    """Return why a ping from the host gets no reply; empty when one of `PROBES` gets one.

    The host's ping gets the same options as the container's, and has to understand them.
    """
    stands_in = site.own_programs is not None
    argv = command.trial() if stands_in else command.probe(address)
    for _ in range(PROBES):
        done = run_bounded(site.native_entrance(host).enter(argv))
        if done.returncode != 1:  # 1: no reply came, ping(8); on a lossy path another may come
            break
    if not done.returncode:
        return ""
    said = done.stderr.strip().splitlines()
    why = f" ({said[0][:200]})" if said else f" (it {done.ended})" if done.ended else ""
    if done.returncode == 1 or not stands_in:
        return f"{host.name} gets no reply from the target{why}"
    if site.native == "image":
        return f"the container's image cannot ping from the host's network{why}"
    return f"this machine's ping cannot run these words{why}; {_OTHERWISE}"


def describe_native(site: Site, command: Command) -> NativeProgram | None:
    """Describe the program that runs on the host instead; None when it is the same file.

    The files of the two programs are read and compared, not executed. Only a ping is run to print
    its version: that of the container by the container's engine.
    """
    container = site.own_programs
    if container is None:
        return None
    inside = EngineExec(container, site.exec_options)
    theirs = version_text(command.words, inside) if command.is_ping else ""
    if site.native == "image":
        return NativeProgram(by="image", container_version=theirs, version=theirs)
    name = Path(command.argv[0]).name
    path = shutil.which(name) or name
    ours = version_text([name, *command.words[1:]]) if command.is_ping else ""
    digests = (file_digest(path), container_digest(container, command.argv[0]))
    same = digests[0] == digests[1] if all(digests) else None
    return NativeProgram(
        by="host", program=path, version=ours, container_version=theirs, same_file=same
    )
