"""A calibration on disk: what a host does to its own pings, as captures with native arms told.

A small JSON file. It keeps, of every capture it was made from, what was measured there, and what it
is valid for. `maceproc.following.native_rtt` makes and uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from maceproc.errors import CaptureError

CALIBRATION_VERSION = 1


class Conditions(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What decides how long a host's own code takes; empty: not known."""

    machine: str = ""  # digest of the machine's identity
    kernel: str = ""
    outer_device: str = ""  # name, kind and queue
    rules: str = ""  # digest of the host's netfilter rules
    nat: bool = False  # the container's addresses are translated
    network: str = ""  # the devices between the container and the outer one
    program: str = ""  # iputils, busybox, fping
    family: str = ""  # IPv4 or IPv6
    size_bytes: int | None = None  # payload
    interval_s: float | None = None  # between pings
    awake: bool = False  # the CPUs were kept from going idle
    events: list[str] = []  # what was recorded


class Measured(msgspec.Struct, kw_only=True):
    """What the native arms of one capture told: means over its rounds [ns].

    Attributes
    ----------
    terms_ns
        Host's part, tracing outside, wire: `maceproc.following.native_rtt.TERMS`.
    covariance_ns2
        Of these three means, from the spread of the rounds.
    rounds
        Rounds that had all arms; of a few, parts of rounds.
    events
        Events on the path of a native traced ping, mean.
    wire_within
        The outer device is a veth: the other end of the wire is in this kernel too.
    own_path_ns
        What of a native traced ping's RTT is neither crossing nor wire, median.
    container_path_ns
        The same of the container's traced pings: how warm the machine was; None when not known.
    first_ns, first_variance_ns2
        How much larger the host's part of a run's first ping is, and the variance of that mean;
        None where no first pings were seen.
    overhead_ns
        The container's overhead: container - native, both untraced; None when not known.
    made_utc_ns
        When the recording began.
    capture, address
        The file, and what was pinged.
    """

    terms_ns: list[float]
    covariance_ns2: list[list[float]]
    rounds: int
    events: float
    wire_within: bool = False
    own_path_ns: float
    container_path_ns: float | None = None
    first_ns: float = 0.0
    first_variance_ns2: float | None = None
    overhead_ns: float | None
    made_utc_ns: int
    capture: str = ""
    address: str = ""


class Calibration(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The whole of a calibration file."""

    format: Literal["maceproc calibration"] = "maceproc calibration"
    version: int = CALIBRATION_VERSION
    maceproc: str  # version of the program that made it
    command: list[str]  # the ping that was run
    place: str  # where: kind and name of the target, as `lab maceproc`
    conditions: Conditions
    measured: list[Measured]


def load_calibration(path: str | Path) -> Calibration:
    """Read a calibration; CaptureError names the file and the place in it that is wrong."""
    try:
        found = msgspec.json.decode(Path(path).read_bytes(), type=Calibration)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CaptureError(
            f"{path}: not a calibration: {error}", hint="make one with `maceproc calibrate`"
        ) from error
    except OSError as error:
        raise CaptureError(
            f"{path}: {error.strerror}", hint="make one with `maceproc calibrate`"
        ) from error
    if found.version > CALIBRATION_VERSION:
        raise CaptureError(
            f"{path}: calibration version {found.version}, this maceproc reads "
            f"{CALIBRATION_VERSION}",
            hint="upgrade maceproc",
        )
    if not found.measured:
        raise CaptureError(f"{path}: holds no measurement", hint="make it again")
    return found


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration whole or not at all; CaptureError when it cannot be written."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    # omit_defaults leaves out the two fields that say what the file is.
    identity = {"format": calibration.format, "version": calibration.version}
    document = identity | msgspec.to_builtins(calibration)
    try:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CaptureError(f"{path}: cannot write the calibration: {error.strerror}") from error
