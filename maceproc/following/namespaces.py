"""Which namespace every device of a packet's journey is in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from maceproc.capture import Sidecar
from maceproc.following.crossings import OUTBOUND
from maceproc.following.hop_arrays import Kind, hop_kinds
from maceproc.following.positions import Bools, Indices
from maceproc.following.topology import stack_of


def name_namespaces(
    hops: pd.DataFrame, crossings: pd.DataFrame, sidecar: Sidecar | None
) -> pd.DataFrame:
    """Return HOPS with the namespace of every device that can be told from its namesakes.

    A name that only one namespace has tells the namespace. Where several namespaces have the name,
    the position in a crossing tells it. Without a sidecar that describes namespaces, nothing is
    known.
    """
    if sidecar is None or not sidecar.namespaces:
        return hops
    names = [namespace.name for namespace in sidecar.namespaces]
    dev = hops["dev"].cat.codes.to_numpy()
    netns = _codes_of(hops, _unique_owners(sidecar), names)[dev]
    path = sidecar.target.path
    if len(path) > 1:
        on_path = _codes_of(
            hops, {hop.dev: hop.netns for hop in (*stack_of(sidecar), *path[1:])}, names
        )
        rows, at_inner = _rows_of_crossings(hops, crossings)
        netns[rows] = np.where(at_inner, names.index(path[0].netns), on_path[dev[rows]])
    return hops.assign(netns=pd.Categorical.from_codes(netns, names))


def _codes_of(hops: pd.DataFrame, netns: Mapping[str, str], names: list[str]) -> Indices:
    """Return the namespace of every device, as its place in `names`; -1 for none, and at the end.

    Shape (devices + 1,).
    """
    devices = hops["dev"].cat.categories
    known = [names.index(netns[dev]) if dev in netns else -1 for dev in devices]
    return np.array([*known, -1], dtype=np.int16)


def _unique_owners(sidecar: Sidecar) -> dict[str, str]:
    """Return the namespace of every device name that only one namespace has."""
    owners = pd.Series(
        {(n.name, link.name): n.name for n in sidecar.namespaces for link in n.links}
    )
    names = owners.index.get_level_values(-1)
    unique = ~names.duplicated(keep=False)
    return dict(zip(names[unique], owners[unique], strict=True))


def _rows_of_crossings(hops: pd.DataFrame, crossings: pd.DataFrame) -> tuple[Indices, Bools]:
    """Return the rows of HOPS within complete crossings, and which are on the inner device."""
    complete = crossings[crossings["status"] == "complete"]
    first, last = complete["first_hop"].to_numpy(), complete["last_hop"].to_numpy()
    length = last - first + 1
    step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    rows = np.repeat(first, length) + step
    outbound = np.repeat((complete["direction"] == OUTBOUND).to_numpy(), length)
    leaving = (step == 0) | ((step == 1) & (hop_kinds(hops)[rows] == Kind.XMIT))
    return rows, np.where(outbound, leaving, rows == np.repeat(last, length))
