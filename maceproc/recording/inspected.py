"""What an engine says of a container: ``ENGINE container inspect``, and what it is confined to.

The answer is foreign text. Only the fields declared here are read, with the types that they have in
https://docs.docker.com/reference/api/engine/ (ContainerInspect); Podman and nerdctl follow it. A
name or an id that no engine would give is ignored.
"""

from __future__ import annotations

import os
import re

import msgspec

_ID = re.compile(r"[0-9a-f]{12,64}")
# What Docker and Podman allow: github.com/moby/moby, daemon/names, RestrictedNameChars
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


class State(msgspec.Struct, rename="pascal"):
    """The state of a container."""

    pid: int | None = 0
    status: str | None = ""
    paused: bool | None = False


class HostConfig(msgspec.Struct, rename="pascal"):
    """What a container may use, and what is denied to it."""

    network_mode: str | None = ""
    init: bool | None = False
    privileged: bool | None = False
    readonly_rootfs: bool | None = False
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    security_opt: list[str] | None = None
    group_add: list[str] | None = None
    userns_mode: str | None = ""
    runtime: str | None = ""
    cpuset_cpus: str | None = ""
    cpu_shares: int | None = 0
    cpu_quota: int | None = 0
    cpu_period: int | None = 0
    nano_cpus: int | None = 0
    memory: int | None = 0
    pids_limit: int | None = 0


class Config(msgspec.Struct, rename="pascal"):
    """How a container's commands are executed."""

    user: str | None = ""
    env: list[str] | None = None
    labels: dict[str, str] | None = None


class Inspected(msgspec.Struct, rename="pascal"):
    """A container as its engine describes it."""

    id: str
    state: State
    name: str | None = ""
    path: str | None = ""
    args: list[str] | None = None
    image: str | None = ""
    host_config: HostConfig | None = None
    config: Config | None = None

    @property
    def plain_name(self) -> str:
        """Its name; the short id where the engine tells no valid name."""
        name = (self.name or "").removeprefix("/")
        return name if _NAME.fullmatch(name) else self.id[:12]

    @property
    def host(self) -> HostConfig:
        """Its HostConfig; an empty one where the engine tells none."""
        return self.host_config or HostConfig()

    def label(self, name: str) -> str:
        """Return the value of a label; empty without one."""
        return ((self.config and self.config.labels) or {}).get(name, "")

    @property
    def search_path(self) -> list[str]:
        """The directories in which its commands are looked for."""
        variables = (self.config and self.config.env) or []
        paths = [value for value in variables if value.startswith("PATH=")]
        return (paths[-1].removeprefix("PATH=") if paths else _DEFAULT_PATH).split(":")


# moby, oci/defaults.go: DefaultPathEnv
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def read_inspected(text: str) -> Inspected | None:
    """Return the one container that an answer describes; None when it describes none."""
    try:
        described = msgspec.json.decode(text, type=list[Inspected])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    one = described[0] if len(described) == 1 else None
    return one if one and _ID.fullmatch(one.id) else None


def confinement(engine: str, container: Inspected) -> list[str]:
    """Return the options of ``ENGINE run`` that confine another container as this one is.

    The options give its user, capabilities, security options, limits and read-only root. They leave
    out its volumes, devices and environment: a ping needs none of them.
    """
    host = container.host
    user = container.config.user if container.config else ""
    words = ["--user", user] if user else []
    words += [word for group in host.group_add or [] for word in ("--group-add", group)]
    words += [word for name in host.cap_drop or [] for word in ("--cap-drop", name)]
    words += [word for name in host.cap_add or [] for word in ("--cap-add", name)]
    words += [
        word
        for option in host.security_opt or []
        for word in ("--security-opt", _security_option(option))
    ]
    words += ["--privileged"] if host.privileged else []
    words += ["--read-only"] if host.readonly_rootfs else []
    words += ["--userns", host.userns_mode] if host.userns_mode else []
    # Podman names the runtime before the verb, and says "oci" here.
    words += ["--runtime", host.runtime] if host.runtime and engine == "docker" else []
    return words + _limits(host)


def _limits(host: HostConfig) -> list[str]:
    limits = {
        "--cpuset-cpus": host.cpuset_cpus,
        "--cpu-shares": host.cpu_shares,
        "--memory": host.memory,
        "--pids-limit": host.pids_limit if (host.pids_limit or 0) > 0 else None,
    }
    if host.nano_cpus:  # Podman also tells a quota; the two options exclude each other
        limits["--cpus"] = f"{host.nano_cpus / 1e9:g}"
    else:
        limits |= {"--cpu-period": host.cpu_period, "--cpu-quota": host.cpu_quota}
    return [word for name, value in limits.items() if value for word in (name, str(value))]


def _security_option(option: str) -> str:
    """Return a security option as the command line takes it.

    Docker tells the text of a seccomp profile, but its command line takes the name of a file.
    """
    name, _, value = option.partition("=")
    if name != "seccomp" or not value.lstrip().startswith("{"):
        return option
    profile = os.memfd_create("seccomp profile")  # open as long as we run: every run reads it
    os.write(profile, value.encode())
    return f"seccomp=/proc/{os.getpid()}/fd/{profile}"
