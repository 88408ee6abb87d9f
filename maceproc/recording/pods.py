"""A Kubernetes pod on this node: its network namespace, as its runtime tells it through crictl(8).

crictl asks containerd or CRI-O. Its answers are foreign text: they are read up to a limit, only the
fields declared here are used, and their types are checked. The names are those of Kubernetes'
runtime API (k8s.io/cri-api, PodSandbox). ``crictl inspectp`` adds what the runtime knows besides:
the first process and the OCI specification of the pod's sandbox (containerd, sandboxInfo; CRI-O,
createSandboxInfo). CRI-O keeps no process for a sandbox that needs none: then a container of the
pod leads to the namespace.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TypeVar

import msgspec

from maceproc.errors import TargetError
from maceproc.foreign_text import clean
from maceproc.recording.engines import ask, reason

CRICTL = "crictl"
MOST_SHOWN = 5

_ID = re.compile(r"[0-9a-f]{12,64}")
_SANDBOX_FILE = re.compile(r"(/var)?/run/(netns|crio/ns)/[A-Za-z0-9._/-]{1,200}")


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""


class _Pod(msgspec.Struct):
    id: str
    metadata: _Metadata

    @property
    def full_name(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"


class _Pods(msgspec.Struct):
    items: list[_Pod] | None = None


class _Namespace(msgspec.Struct):
    type: str = ""
    path: str = ""


class _Linux(msgspec.Struct):
    namespaces: list[_Namespace] | None = None


class _Specification(msgspec.Struct):
    linux: _Linux | None = None


class _Info(msgspec.Struct):
    pid: int | None = None
    spec: _Specification | None = msgspec.field(name="runtimeSpec", default=None)


class _Inspected(msgspec.Struct):
    info: _Info | None = None


Answer = TypeVar("Answer", _Pods, _Inspected)


def find_pod(name: str) -> tuple[str, str]:
    """Return a running pod's full name and the file of its network namespace.

    `name` is ``NAMESPACE/NAME``, or ``NAME`` where only one namespace has such a pod. Raises
    TargetError when there is none or more than one, or when its namespace cannot be found.
    """
    if not shutil.which(CRICTL):
        raise TargetError(
            f"no {CRICTL} here to find pod {name!r} with",
            hint="install crictl, or give --pid the pid of any process of the pod",
        )
    listed = _asked(["pods", "--state", "ready", "--output", "json"], _Pods)
    pods = [pod for pod in listed.items or [] if _ID.fullmatch(pod.id)]
    found = [pod for pod in pods if name in (pod.full_name, pod.metadata.name)]
    if not found:
        names = sorted(clean(pod.full_name)[:100] for pod in pods)
        shown = ", ".join(names[:MOST_SHOWN]) + (", ..." if len(names) > MOST_SHOWN else "")
        raise TargetError(
            f"no pod {name!r} runs on this node",
            hint=f"there are {shown}" if names else "`crictl pods` shows those that run here",
        )
    if len(found) > 1:
        raise TargetError(
            f"{len(found)} pods are called {name!r}",
            hint=f"give one with its namespace: {clean(found[0].full_name)}",
        )
    (pod,) = found
    return pod.full_name, _network_namespace(pod)


def _network_namespace(pod: _Pod) -> str:
    """Return the file of a pod's network namespace: the runtime's, or that of a process in it."""
    sandbox = _asked(["inspectp", "--output", "json", pod.id], _Inspected).info or _Info()
    for file in _files(sandbox, pod.id):
        return file
    listed = ask([CRICTL, "ps", "--quiet", "--no-trunc", "--pod", pod.id])
    for container in listed.stdout.split():
        if _ID.fullmatch(container):
            inside = _asked(["inspect", "--output", "json", container], _Inspected).info or _Info()
            for file in _files(inside, container):
                return file
    raise TargetError(
        f"the network namespace of pod {clean(pod.full_name)} is not here",
        hint="record on the node that the pod runs on, outside of any container",
    )


def _files(info: _Info, owner: str) -> list[str]:
    """Return the files that lead to the namespace, of those that can be trusted to exist here.

    A process counts if the kernel says that it belongs to the pod or container: a runtime may be in
    a virtual machine, where other processes have these pids.
    """
    spaces = (info.spec and info.spec.linux and info.spec.linux.namespaces) or []
    files = [space.path for space in spaces if space.type == "network"]
    found = [file for file in files if _SANDBOX_FILE.fullmatch(file) and ".." not in file]
    if info.pid and info.pid > 0 and _is_of(info.pid, owner):
        found.append(f"/proc/{info.pid}/ns/net")
    return [file for file in found if Path(file).exists()]


def _is_of(pid: int, owner: str) -> bool:
    try:
        return owner in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _asked(words: list[str], answer: type[Answer]) -> Answer:
    """Return what crictl answers; TargetError in its own words when it does not."""
    done = ask([CRICTL, *words])
    if done.returncode:
        raise TargetError(f"crictl: {clean(reason(done))[:200]}", hint="does `crictl pods` work?")
    try:
        return msgspec.json.decode(done.stdout, type=answer)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise TargetError(f"crictl: its answer is not understood: {clean(error)[:200]}") from error
