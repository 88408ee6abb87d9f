"""The structures and numbers of perf.data.

Sources: include/uapi/linux/perf_event.h (records 1 to 63, struct perf_event_attr),
tools/lib/perf/include/perf/event.h (records from 64), tools/perf/util/header.h (features); v6.18.
"""

from __future__ import annotations

from dataclasses import dataclass

from maceproc.tracedat.structures import Structure

MAGICS = {b"PERFILE2": "<", b"2ELIFREP": ">"}

FILE_SECTION = Structure("a section", (("offset", "Q"), ("size", "Q")))
FILE_HEADER = Structure(
    "the file header",
    (
        ("magic", "Q"),
        ("size", "Q"),
        ("attr_size", "Q"),
        ("attrs_offset", "Q"),
        ("attrs_size", "Q"),
        ("data_offset", "Q"),
        ("data_size", "Q"),
        ("event_types_offset", "Q"),
        ("event_types_size", "Q"),
        ("features_0", "Q"),
        ("features_1", "Q"),
        ("features_2", "Q"),
        ("features_3", "Q"),
    ),
)
PIPE_HEADER = Structure("the pipe header", (("magic", "Q"), ("size", "Q")))

# struct perf_event_attr, up to sample_max_stack. What follows a shorter one is 0.
ATTR = Structure(
    "an attribute",
    (
        ("type", "I"),
        ("size", "I"),
        ("config", "Q"),
        ("sample_period", "Q"),
        ("sample_type", "Q"),
        ("read_format", "Q"),
        ("flags", "Q"),
        ("wakeup_events", "I"),
        ("bp_type", "I"),
        ("config1", "Q"),
        ("config2", "Q"),
        ("branch_sample_type", "Q"),
        ("sample_regs_user", "Q"),
        ("sample_stack_user", "I"),
        ("clockid", "i"),
    ),
)
ATTR_SIZE_VER0 = 64  # [bytes]
TYPE_TRACEPOINT = 2

# Bits of perf_event_attr, counted from the first bit-field.
SAMPLE_ID_ALL, USE_CLOCKID = 18, 25
CLOCKS = {0: "realtime", 1: "mono", 4: "mono_raw", 7: "boot", 11: "tai"}
PERF_CLOCK = "perf"  # sched_clock(), where no clock was asked for

# enum perf_event_sample_format
SAMPLE_IP, SAMPLE_TID, SAMPLE_TIME, SAMPLE_ADDR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
SAMPLE_READ, SAMPLE_CALLCHAIN, SAMPLE_ID, SAMPLE_CPU = 1 << 4, 1 << 5, 1 << 6, 1 << 7
SAMPLE_PERIOD, SAMPLE_STREAM_ID, SAMPLE_RAW = 1 << 8, 1 << 9, 1 << 10
SAMPLE_IDENTIFIER = 1 << 16

# A sample's fields, in their order, up to the counters (perf_output_sample(),
# kernel/events/core.c, v6.18). Each has 8 bytes.
SAMPLE_FIELDS = (
    SAMPLE_IDENTIFIER,
    SAMPLE_IP,
    SAMPLE_TID,
    SAMPLE_TIME,
    SAMPLE_ADDR,
    SAMPLE_ID,
    SAMPLE_STREAM_ID,
    SAMPLE_CPU,
    SAMPLE_PERIOD,
)
# With sample_id_all, every other record ends with these fields (struct sample_id), 8 bytes each.
SAMPLE_ID_FIELDS = (
    SAMPLE_TID,
    SAMPLE_TIME,
    SAMPLE_ID,
    SAMPLE_STREAM_ID,
    SAMPLE_CPU,
    SAMPLE_IDENTIFIER,
)

# enum perf_event_read_format
READ_ENABLED, READ_RUNNING, READ_ID, READ_GROUP, READ_LOST = 1, 2, 4, 8, 16

RECORD_HEADER = Structure("a record", (("type", "I"), ("misc", "H"), ("size", "H")))

# enum perf_event_type
RECORD_LOST, RECORD_COMM, RECORD_FORK = 2, 3, 7
RECORD_SAMPLE, RECORD_LOST_SAMPLES = 9, 13
# enum perf_user_event_type
RECORD_HEADER_ATTR, RECORD_TRACING_DATA, RECORD_AUXTRACE = 64, 66, 71
RECORD_FINISHED_ROUND = 68
RECORD_HEADER_FEATURE, RECORD_COMPRESSED, RECORD_COMPRESSED2 = 80, 81, 83
FIRST_USER_RECORD, LAST_RECORD = 64, 99  # above any known type

MISC_LOST_SAMPLES_BPF = 1 << 15  # samples that a filter left out: they are not lost

# Features: an enum in tools/perf/util/header.h, v6.18.
TRACING_DATA, HOSTNAME, OSRELEASE, VERSION, ARCH, NRCPUS = 1, 3, 4, 5, 6, 7
CMDLINE, EVENT_DESC, CLOCKID, CLOCK_DATA = 11, 12, 23, 29
FEATURE_BITS = 256


@dataclass(frozen=True)
class Attr:
    """One event that was recorded: what of it is in a sample, and its samples' ids."""

    type: int
    config: int  # of a tracepoint: its id
    sample_type: int
    read_format: int
    flags: int  # bits in the order of struct perf_event_attr
    clockid: int
    ids: tuple[int, ...] = ()
    name: str = ""

    def has(self, bit: int) -> bool:
        """Whether a flag is set."""
        return bool(self.flags >> bit & 1)

    @property
    def is_tracepoint(self) -> bool:
        """Whether its samples can have the data of a tracepoint."""
        return self.type == TYPE_TRACEPOINT and bool(self.sample_type & SAMPLE_RAW)

    @property
    def clock(self) -> str:
        """The trace clock's name, as ftrace has it."""
        return CLOCKS.get(self.clockid, "") if self.has(USE_CLOCKID) else PERF_CLOCK
