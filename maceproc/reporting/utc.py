"""When every ping was sent and received, in UTC, beside its RTTs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from maceproc.reporting.export.provenance import utc_offset
from maceproc.schema import PINGS, RTTS, Column, Table

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

KERNEL, PRINTED = "kernel", "ping -D"

UTC_TIMES = Table(
    "utc_times",
    "one ping, and when it was",
    (
        *(PINGS[name] for name in ("round", "arm", "target", "seq")),
        Column("sent_at", "datetime64[ns, UTC]", "", "when it was sent; missing when not known"),
        Column("received_at", "datetime64[ns, UTC]", "", "when its reply was received, likewise"),
        Column("time_basis", "str", "", "who says so: kernel, ping -D, or nobody (empty)"),
        *(RTTS[name] for name in ("rtt_ns", "bare_metal_rtt_ns", "wire_rtt_ns", "status")),
    ),
)


def utc_times(analysis: Analysis) -> pd.DataFrame:
    """Return UTC_TIMES, with a row for every row of RTTS in the same order.

    The times of a traced ping are the kernel's, converted to UTC by the offset between the two
    clocks when its run began. The receive time of any other ping is the one that ``ping -D``
    printed; its send time is that time minus the printed RTT. Without a sidecar, and without -D, no
    time is known.
    """
    rtts = analysis.rtts
    offset_ns = utc_offset(analysis)
    sent_ns, received_ns = rtts["sent_ns"], rtts["received_ns"]
    offsets_ns = pd.Series(
        [pd.NA if pd.isna(time_ns) else offset_ns(int(time_ns)) for time_ns in sent_ns],
        index=rtts.index,
        dtype="Int64",
    )
    by_kernel = offsets_ns.notna()
    printed_ns = analysis.pings["received_at_ns"].set_axis(rtts.index)
    received_at_ns = (received_ns + offsets_ns).where(by_kernel, printed_ns)
    sent_at_ns = (sent_ns + offsets_ns).where(by_kernel, printed_ns - rtts["rtt_ns"])
    basis = pd.Series("", index=rtts.index).mask(printed_ns.notna(), PRINTED)
    return UTC_TIMES.frame(
        {name: rtts[name] for name in UTC_TIMES.names if name in rtts}
        | {
            "sent_at": pd.to_datetime(sent_at_ns, utc=True),
            "received_at": pd.to_datetime(received_at_ns, utc=True),
            "time_basis": basis.mask(by_kernel, KERNEL),
        }
    )
