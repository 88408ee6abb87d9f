"""Events of every field kind, as hypothesis strategies, with the payload and the expected row."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.tracedat_writer import LONG, Buffer, File, Machine, Page, Record, fits

COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)

# Declaration, struct letter (P: the kernel's long), sign, values.
NUMBERS = [
    ("u8 tiny", "B", 0, st.integers(0, 2**8 - 1)),
    ("char letter", "b", 1, st.integers(-(2**7), 2**7 - 1)),
    ("bool flag", "?", 0, st.booleans()),
    ("u16 queue_mapping", "H", 0, st.integers(0, 2**16 - 1)),
    ("short offset", "h", 1, st.integers(-(2**15), 2**15 - 1)),
    ("unsigned int len", "I", 0, st.integers(0, 2**32 - 1)),
    ("int rc", "i", 1, st.integers(-(2**31), 2**31 - 1)),
    ("enum skb_drop_reason reason", "I", 0, st.integers(0, 200)),
    ("u64 cookie", "Q", 0, st.integers(0, 2**64 - 1)),
    ("long long delta", "q", 1, st.integers(-(2**63), 2**63 - 1)),
    ("const void * skbaddr", "P", 0, st.integers(0, 2**32 - 1)),
]
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
SAMPLE_ID, PRINT_ID, CALL_ID = 300, 5, 301


@dataclass
class Event:
    """One event: what is written, and what is to be read."""

    time: int
    name: str
    row: dict[str, object]
    payload: bytes
    form: dict[str, bool] = field(default_factory=dict)


def sample_format(machine: Machine) -> tuple[str, list[tuple[str, str, int]]]:
    """Return the sample event's format text, and letter and offset of every number field."""
    lines, places, offset = [], [], 8
    for declaration, kind, signed, _ in NUMBERS:
        letter = LONG[machine.long_size] if kind == "P" else kind
        size = struct.calcsize("=" + letter)
        offset += -offset % size
        lines.append(field_line(declaration, offset, size, signed))
        places.append((declaration.split()[-1], letter, offset))
        offset += size
    offset += -offset % 4
    for declaration, size in (
        ("char comm[16]", 16),
        ("__u8 saddr[4]", 4),
        ("u32 args[2]", 8),
        ("__data_loc char[] name", 4),
        ("__rel_loc char[] peer", 4),
        ("__data_loc u16[] ports", 4),
    ):
        lines.append(field_line(declaration, offset, size, 0))
        places.append((declaration.split("[")[0].split()[-1], "", offset))
        offset += size
    names = [line.split(";")[0].split()[-1].partition("[")[0] for line in lines]
    places = [(name, letter, at) for name, (_, letter, at) in zip(names, places, strict=True)]
    text = f'name: sample\nID: {SAMPLE_ID}\nformat:\n{COMMON}{"".join(lines)}\nprint fmt: ""\n'
    return text, places


def field_line(declaration: str, offset: int, size: int, signed: int) -> str:
    return f"\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"


def print_format(machine: Machine) -> str:
    long = machine.long_size
    fields = field_line("unsigned long ip", 8, long, 0) + field_line("char buf[]", 8 + long, 0, 0)
    return f'name: print\nID: {PRINT_ID}\nformat:\n{COMMON}{fields}\nprint fmt: ""\n'


def head(machine: Machine, number: int, flags: int, pid: int) -> bytes:
    return machine.pack("HBBi", number, flags, 0, pid)


@st.composite
def sample_payloads(draw: st.DrawFn, machine: Machine) -> tuple[bytes, dict[str, object]]:
    _, places = sample_format(machine)
    pid, flags = draw(st.integers(0, 2**22)), draw(st.integers(0, 255))
    row: dict[str, object] = {"pid": pid, "flags": flags}
    fixed = places[-1][2] + 4
    data = bytearray(head(machine, SAMPLE_ID, flags, pid).ljust(fixed, b"\0"))
    for (name, letter, offset), (_, _, _, values) in zip(places, NUMBERS, strict=False):
        row[name] = draw(values)
        struct.pack_into(machine.order + letter, data, offset, row[name])
    offsets = {name: offset for name, _, offset in places}
    comm = draw(st.text("abc-/ :", max_size=15))
    row["comm_"], row["saddr"] = comm, draw(st.binary(min_size=4, max_size=4))
    data[offsets["comm"] : offsets["comm"] + 16] = comm.encode().ljust(16, b"\0")
    data[offsets["saddr"] : offsets["saddr"] + 4] = row["saddr"]
    row["args"] = tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=2)))
    struct.pack_into(machine.order + "2I", data, offsets["args"], *row["args"])
    for name in ("name", "peer"):
        row[name] = draw(TEXT)
        text = str(row[name]).encode() + b"\0"
        start = len(data) - (offsets[name] + 4 if name == "peer" else 0)
        struct.pack_into(machine.order + "I", data, offsets[name], len(text) << 16 | start)
        data += text
    row["ports"] = tuple(draw(st.lists(st.integers(0, 2**16 - 1), max_size=40)))
    body = struct.pack(f"{machine.order}{len(row['ports'])}H", *row["ports"])
    struct.pack_into(machine.order + "I", data, offsets["ports"], len(body) << 16 | len(data))
    return bytes(data + body), row


@st.composite
def print_payloads(draw: st.DrawFn, machine: Machine) -> tuple[bytes, dict[str, object]]:
    pid, text, ip = draw(st.integers(0, 9)), draw(TEXT), draw(st.integers(0, 2**32 - 1))
    data = head(machine, PRINT_ID, 0, pid) + machine.pack(
        "I" if machine.long_size == 4 else "Q", ip
    )
    return data + text.encode() + b"\0", {"pid": pid, "flags": 0, "ip": ip, "buf": text}


@st.composite
def cpu_pages(
    draw: st.DrawFn, machine: Machine, page_size: int
) -> tuple[list[Page], list[Event], list[tuple[int | None, int, int | None]]]:
    """Return a CPU's pages, its events, and its gaps: last before, first after, number lost."""
    now = draw(st.integers(0, 2**40))
    pages: list[Page] = []
    events: list[Event] = []
    gaps = []
    for _ in range(draw(st.integers(0, 3))):
        lost = draw(st.sampled_from([None, None, -1, 1, 70000]))
        page = Page(now, lost=lost)
        own = []
        for _ in range(draw(st.integers(0, 6))):
            now += draw(st.sampled_from([0, 0, 1, 700, 2**27 - 1, 2**27, 2**35]))
            payload, row = draw(st.one_of(sample_payloads(machine), print_payloads(machine)))
            record = Record(
                now, payload, long_form=draw(st.booleans()), absolute=draw(st.booleans())
            )
            page.records.append(record)
            if not fits(machine, page, page_size):
                page.records.pop()
                break
            name = "print" if "buf" in row else "sample"
            own.append(Event(now, name, row, payload))
            if draw(st.booleans()):
                page.records.append(Record(now + 1, bytes(8), padding=True))
                if fits(machine, page, page_size):
                    now += 1
                else:
                    page.records.pop()
        if lost is not None:
            before = own[0].time if own else page.time
            after = (events[-1].time if pages[-1].records else pages[-1].time) if pages else None
            gaps.append((after, before, lost if lost > 0 else None))
        pages.append(page)
        events += own
        now += draw(st.integers(0, 2**30))
    return pages, events, gaps


@st.composite
def files(draw: st.DrawFn) -> tuple[File, list[tuple[str, int, Event]], list[tuple[object, ...]]]:
    """Return a file, its events as (buffer, cpu, event), and its gaps."""
    machine = Machine(draw(st.sampled_from("<>")), draw(st.sampled_from([4, 8])))
    version = draw(st.sampled_from([6, 7]))
    compression = "none" if version == 6 else draw(st.sampled_from(["none", "zstd", "zlib"]))
    names = ["", "web"][: draw(st.integers(1, 2))]
    buffers, events, gaps = [], [], []
    for name in names:
        size = 4096 if version == 6 else draw(st.sampled_from([4096, 16384]))
        cpus = {}
        for cpu in draw(st.lists(st.integers(0, 200), unique=True, max_size=3)):
            pages, own, lost = draw(cpu_pages(machine, size))
            cpus[cpu] = pages
            events += [(name, cpu, event) for event in own]
            gaps += [(name, cpu, *gap) for gap in lost]
        buffers.append(Buffer(name, cpus, size))
    formats = {"ftrace": [print_format(machine)], "test": [sample_format(machine)[0]]}
    file = File(
        buffers,
        formats,
        machine,
        version,
        compression,
        comms={1: "init", 2: "a b-c"},
        pages_in_chunk=draw(st.sampled_from([1, 2, 10])),
        count_in_size=draw(st.booleans()),
    )
    return file, events, gaps
