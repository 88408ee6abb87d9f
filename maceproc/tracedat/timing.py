"""From the ring buffer's times to nanoseconds on the trace clock."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maceproc.tracedat.container import TSC_CONVERTED
from maceproc.tracedat.ringbuffer import Int64s
from maceproc.tracedat.tracefile import (
    DATE,
    OFFSET,
    TIME_SHIFT,
    TSC2NSEC,
    TraceFile,
)


@dataclass(frozen=True)
class Clock:
    """From the ring buffer's times to nanoseconds."""

    mult: int = 1
    shift: int = 0
    offset_ns: int = 0

    @property
    def scales(self) -> bool:
        """Whether a step of the raw time is not a nanosecond."""
        return (self.mult, self.shift) != (1, 0)

    def convert(self, raw: npt.NDArray[np.uint64]) -> Int64s:
        """Convert raw times to [ns]: ``(raw * mult >> shift) + offset_ns``, in 128 bits."""
        if not self.scales:
            scaled = raw
        else:
            # The halves separately, as mul_u64_u32_shr() does it (include/linux/math64.h, v6.8).
            mult, half = np.uint64(self.mult), np.uint64(32)
            low, high = (raw & np.uint64(0xFFFF_FFFF)) * mult, (raw >> half) * mult
            if self.shift < 32:
                scaled = (low >> np.uint64(self.shift)) + (high << np.uint64(32 - self.shift))
            else:
                scaled = (high + (low >> half)) >> np.uint64(self.shift - 32)
        times: Int64s = scaled.view(np.int64)
        return times + np.int64(self.offset_ns) if self.offset_ns else times


def read_clock(trace: TraceFile) -> Clock:
    """Read how times are to be converted from the options DATE, OFFSET and TSC2NSEC."""
    mult, shift = 1, 0
    stored = trace.option(TSC2NSEC)
    if stored is not None and len(stored) >= 8 and trace.clock == TSC_CONVERTED:
        mult, shift = struct.unpack_from(trace.order + "II", stored)
        shift = min(shift, 63)
    # DATE is in microseconds, OFFSET in nanoseconds (trace-cmd 3.4, lib/trace-cmd/trace-input.c).
    offset = _option_number(trace, DATE) * 1000 + _option_number(trace, OFFSET)
    if trace.option(TIME_SHIFT) is not None:
        trace.notes.append("a guest's file: its times are the guest's, not shifted to the host's")
    return Clock(mult, shift, (offset + 2**63) % 2**64 - 2**63)


def _option_number(trace: TraceFile, number: int) -> int:
    text = trace.option_text(number).strip()
    try:
        return int(text, 0) if text else 0
    except ValueError:
        return 0
