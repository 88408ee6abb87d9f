"""What kernels, trace-cmd and perf print beside ``name=value``: read as what it is, lost never."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from maceproc.errors import TraceFormatError
from maceproc.schema import EVENTS, Trace
from maceproc.tracetext import read_text

HEAD = "            ping-771     [001] .....    10.{:06d}: "
QUEUE = "net_dev_queue: dev=lo skbaddr=0xffff888107935200 len=98"


def read(tmp_path: Path, text: str) -> Trace:
    path = tmp_path / "trace.txt"
    path.write_text(text + "\n")
    return read_text(path)


def bodies(tmp_path: Path, *texts: str) -> Trace:
    """Read events that differ only behind their time."""
    return read(tmp_path, "\n".join(HEAD.format(n) + text for n, text in enumerate(texts)))


def own(trace: Trace, event: str) -> dict[str, list[object]]:
    """Return an event's own columns."""
    table = trace.events[event]
    return {name: table[name].tolist() for name in table if name not in EVENTS.names}


# --- the start of a line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ping-771 [001] d..h3.11  5.000001: ", ("ping", 771, 1, 5_000_001_000)),
        ("ping-771 [001] dnLh1..2  5.000001: ", ("ping", 771, 1, 5_000_001_000)),
        ("ping-771 [001]  5.000001: ", ("ping", 771, 1, 5_000_001_000)),
        ("ping-771 (-------) [001] .....  5.000001: ", ("ping", 771, 1, 5_000_001_000)),
        ("ping-771 (-----) [001] 5.000001: ", ("ping", 771, 1, 5_000_001_000)),
        ("ping-771 [001]  5.000001000: (+1082)  ", ("ping", 771, 1, 5_000_001_000)),
        ("ping-771 [001]19635236146062: ", ("ping", 771, 1, 19635236146062)),
        ("ping-771 [001] .....            3: ", ("ping", 771, 1, 3)),
        ("ping-771   1d..2.  224: ", ("ping", 771, 1, 224)),
        ("ping-771   1dn.h311 12us!: ", ("ping", 771, 1, 12_000)),
        (
            "   ping     771   1 128 00000000 000002c5 [3a93d7e0] 9.182ms (+0.315ms): ",
            ("ping", 771, 1, 0x3A93D7E0 * 1000),
        ),
        (
            "   ping     771   1 128 00000000 000002c5 [00000000000014ed] 725 (+1): ",
            ("ping", 771, 1, 0x14ED),
        ),
        ("<...>-771 [001] .....  5.000001: ", ("<...>", 771, 1, 5_000_001_000)),
        ("a-1 [0] b-771 [001] .....  5.000001: ", ("a-1 [0] b", 771, 1, 5_000_001_000)),
        ("memfd:sealed-91-771 [001] .....  5.000001: ", ("memfd:sealed-91", 771, 1, 5_000_001_000)),
        ("tmux: server-771 [001] .....  5.000001: ", ("tmux: server", 771, 1, 5_000_001_000)),
    ],
)  # fmt: skip
def test_the_start_of_a_line(tmp_path: Path, line: str, expected: tuple[object, ...]) -> None:
    row = read(tmp_path, line + QUEUE).events["net_dev_queue"].iloc[0]
    assert (row.comm, row.pid, row.cpu, row.time_ns) == expected
    assert (row.skbaddr, row["name"], row.len) == (0xFFFF888107935200, "lo", 98)


def test_the_header_says_what_the_columns_of_flags_are(tmp_path: Path) -> None:
    header = """# tracer: nop
#                                _------=> irqs-off
#                               / _-----=> need-resched
#                              | / _----=> need-resched-lazy
#                              || / _---=> hardirq/softirq
#                              ||| / _--=> preempt-depth"""
    line = f"            ping-771     [001] dn.s1    10.000001: {QUEUE}"
    assert read(tmp_path, f"{header}\n{line}").events["net_dev_queue"]["flags"].tolist() == [0x15]
    assert read(tmp_path, line.replace("dn.s1", "dns1.")).events["net_dev_queue"][
        "flags"
    ].tolist() == [0x15]


def test_instances_are_told_from_commands_with_colons(tmp_path: Path) -> None:
    lines = [
        f"          web:             ping-771   [001] 10.000001: {QUEUE}",
        f"    tmux: server-44    [001] 10.000002: {QUEUE}",
        f"maceproc-8558:     kworker/u8:3-15229 [001] 10.000003: {QUEUE}",
    ]
    table = read(tmp_path, "\n".join(lines)).events["net_dev_queue"]
    assert table["buffer"].tolist() == ["web", "", "maceproc-8558"]
    assert table["comm"].tolist() == ["ping", "tmux: server", "kworker/u8:3"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ping 771 [001] 5.000001: net:", ("ping", 771)),
        ("ping 770/771 [001] 5.000001:          1 net:", ("ping", 771)),
        ("771 [001] 5.000001: net:", ("<...>", 771)),
        ("Web Content 2 [a] 771 [001] 5.000001: net:", ("Web Content 2 [a]", 771)),
        ("tmux: server-1 771 [001] 5.000001: net:", ("tmux: server-1", 771)),
        (":771 771 [001] 5.000001: net:", (":771", 771)),
        (":-1 -1 [001] 5.000001: net:", (":-1", -1)),
    ],
)
def test_perf_script(tmp_path: Path, line: str, expected: tuple[str, int]) -> None:
    trace = read(tmp_path, line + QUEUE)
    row = trace.events["net_dev_queue"].iloc[0]
    assert ((row.comm, row.pid), row.cpu, row.len) == (expected, 1, 98)
    assert trace.notes == (
        ("perf script printed no column comm",) if expected[0] == "<...>" else ()
    )


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("ping 771 5.000001: net:", "cpu"),
        ("ping 771 [001] net:", "time"),
        ("ping [001] 5.000001: net:", "tid"),
        ("5.000001: net:", "cpu, tid"),
        ("ping net:", "time, cpu, tid"),
    ],
)
def test_columns_that_perf_script_did_not_print_are_named(
    tmp_path: Path, line: str, missing: str
) -> None:
    with pytest.raises(TraceFormatError, match=f"lines of perf script without {missing} in 2"):
        read(tmp_path, "\n".join([line + QUEUE] * 2))


def test_perf_script_without_fields_and_with_call_chains(tmp_path: Path) -> None:
    chain = "\tffffffff81e65af6 __dev_queue_xmit+0x486 ([kernel.kallsyms])\n"
    trace = read(tmp_path, f"ping 771 [001] 5.000001: net:net_dev_queue:\n{chain * 2}")
    assert len(trace.events["net_dev_queue"]) == 1
    assert trace.notes == (
        "2 lines of call chains, left out",
        "perf script printed no column trace",
    )


# --- events ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "event", "columns"),
    [
        (
            "sched_switch: prev_comm=a b prev_state=R+ ==> next_comm=tmux: server next_pid=7",
            "sched_switch",
            {"prev_comm": "a b", "prev_state": "R+", "next_comm": "tmux: server", "next_pid": 7},
        ),
        ("softirq_raise: vec=3 [action=NET_RX]", "softirq_raise", {"vec": 3, "action": "NET_RX"}),
        ("sched_stat_wait: pid=7 delay=320 [ns]", "sched_stat_wait", {"pid_": 7, "delay": 320}),
        ("cpu_idle: state = 3, cpu = 1", "cpu_idle", {"state": 3, "cpu_": 1}),
        ("x: a=1,b=0x10;c=-2", "x", {"a": 1, "b": 16, "c": -2}),
        ("x: error=-22 (EINVAL)", "x", {"error": -22}),
        ("signal_deliver: sa_flags=14000000", "signal_deliver", {"sa_flags": 0x14000000}),
        ("tcp_probe: sock_cookie=10", "tcp_probe", {"sock_cookie": 16}),
        ("timer_init: timer=0000000042502076", "timer_init", {"timer": 0x42502076}),
        (
            "napi_poll: napi poll on napi struct ffff888107935200 for device eth0 work 1 budget 64",
            "napi_poll",
            {"napi": 0xFFFF888107935200, "dev_name": "eth0", "work": 1, "budget": 64},
        ),
        ("bpf_trace_printk: EAGAIN", "bpf_trace_printk", {"text": "EAGAIN"}),
        ("x: enqueue: pid=12", "x", {"pid_": 12, "text": "enqueue: pid=12"}),
        ("x: a 1 b=2", "x", {"b": 2, "text": "a 1 b=2"}),
        ("x: a=1 a=2", "x", {"a": 1, "text": "a=1 a=2"}),
        ("p_ip: (ip+0x0/0x40) arg1=0x5", "p_ip", {"__probe_ip": "ip+0x0/0x40", "arg1": 5}),
        (
            "r_ip: (a+0x1/0x2 <- b) ret=0x5",
            "r_ip",
            {"__probe_ret_ip": "a+0x1/0x2", "__probe_func": "b", "ret": 5},
        ),
        ("ip_send_skb <-ip_push", "function", {"ip": "ip_send_skb", "parent_ip": "ip_push"}),
        (
            "br_forward.isra.0+0x4/0x60 [bridge] <-br_handle [bridge]",
            "function",
            {"ip": "br_forward.isra.0+0x4/0x60 [bridge]", "parent_ip": "br_handle [bridge]"},
        ),
        (
            "ip_send(net=0xffff8881, skb=0x5) <-ip_push",
            "function",
            {"ip": "ip_send(net=0xffff8881, skb=0x5)", "parent_ip": "ip_push"},
        ),
        ("function:   ip_send <-- ip_push", "function", {"ip": "ip_send", "parent_ip": "ip_push"}),
        ("sys_enter: NR 44 (3, 55e8d0, 40)", "sys_enter", {"id": 44, "args": (3, 0x55E8D0, 0x40)}),
        ("sys_exit: NR 44 = -11", "sys_exit", {"id": 44, "ret": -11}),
        ("sys_exit_group(error_code: 10)", "sys_enter_exit_group", {"error_code": 16}),
        ("sys_exit(error_code: 0)", "sys_enter_exit", {"error_code": 0}),
        ("sys_exit_mmap -> 0x7f00", "sys_exit_exit_mmap", {"ret": 0x7F00}),
        ("sys_getpid()", "sys_enter_getpid", {}),
        ("sys_read(unsigned int fd: a, char * buf: 7f)", "sys_enter_read", {"fd": 10, "buf": 0x7F}),
        (
            'sys_enter_openat: dfd: 0xffffff9c, filename: 0x7f0d "/a, b: c", flags: 0x80',
            "sys_enter_openat",
            {"dfd": 0xFFFFFF9C, "filename": 0x7F0D, "flags_": 0x80},
        ),
        ("tracing_mark_write: a: b=1", "print", {"ip": "tracing_mark_write", "buf": "a: b=1"}),
        ("write_marker_to_buffer: x", "print", {"ip": "write_marker_to_buffer", "buf": "x"}),
        ("tracing_mark_write.isra.0: x", "print", {"ip": "tracing_mark_write.isra.0", "buf": "x"}),
        ("function:   ip_send", "function", {"ip": "ip_send"}),
        ("ffffffff81234567: x: y", "print", {"ip": 0xFFFFFFFF81234567, "buf": "x: y"}),
        ("a..b$1 [m] <ffff81>: x", "print", {"ip": "a..b$1 [m] <ffff81>", "buf": "x"}),
        ("tracing_mark_write: 12", "print", {"ip": "tracing_mark_write", "buf": "12"}),
        ("x: comm=123 filename=deadbeef", "x", {"comm_": "123", "filename": "deadbeef"}),
        (": x", "print", {"ip": "", "buf": "x"}),
        ("0: C|771|queue|1", "print", {"ip": 0, "buf": "C|771|queue|1"}),
        ("print:     0xffff81: x", "print", {"ip": 0xFFFF81, "buf": "x"}),
        ("bprint:    my_init+0x12/0x80: x", "bprint", {"ip": "my_init+0x12/0x80", "buf": "x"}),
        ("netif_rx: dev=lo skbaddr=(____ptrval____)", "netif_rx", {"name": "lo", "skbaddr": pd.NA}),
    ],
)  # fmt: skip
def test_an_event(tmp_path: Path, text: str, event: str, columns: dict[str, object]) -> None:
    trace = bodies(tmp_path, text)
    assert set(trace.events) == {event}
    assert own(trace, event) == {name: [value] for name, value in columns.items()}
    assert trace.notes == ()


def test_a_marker_has_several_lines(tmp_path: Path) -> None:
    marker = [HEAD.format(1) + "tracing_mark_write: first", "second", "", "fourth: x=1", ""]
    trace = read(tmp_path, "\n".join([*marker, HEAD.format(2) + QUEUE]))
    assert trace.events["print"]["buf"].tolist() == ["first\nsecond\n\nfourth: x=1"]
    assert trace.notes == ()


def test_a_stack_is_a_list_of_callers(tmp_path: Path) -> None:
    stack = [HEAD.format(1) + "<stack trace>", " => a", " => b+0x1/0x2", HEAD.format(2) + QUEUE]
    trace = read(tmp_path, "\n".join(stack))
    assert trace.events["kernel_stack"]["caller"].tolist() == [("a", "b+0x1/0x2")]
    assert trace.notes == ()


def test_whole_lines_with_fewer_fields_are_kept(tmp_path: Path) -> None:
    trace = bodies(tmp_path, "x: a=1 b=2", "x: a=1 b=2", "x: a=1", "x:")
    assert own(trace, "x") == {"a": [1, 1, 1, pd.NA], "b": [2, 2, pd.NA, pd.NA]}


def test_a_cut_system_call_is_left_out_and_counted(tmp_path: Path) -> None:
    trace = bodies(tmp_path, "sys_sendto(fd: 3, buff: 55e8)", "sys_sendto(fd: 3, buff: 55")
    assert trace.events["sys_enter_sendto"]["buff"].tolist() == [0x55E8]
    assert trace.notes == ("1 lines are cut short, left out",)


@pytest.mark.parametrize(
    "graph",
    [
        " 0)   1.382 us    |    }\n 0)               |  sys_open() {",
        " 1234.567890 |   0)  ping-771  |   1.382 us    |    }",
        " ------------------------------------------\n 0)   ping-771    =>   sh-12",
    ],
)
def test_function_graph_is_refused_by_name(tmp_path: Path, graph: str) -> None:
    with pytest.raises(TraceFormatError, match="the text of the function_graph tracer"):
        read(tmp_path, f"# tracer: function_graph\n#\n{graph}")
    trace = read(tmp_path, f"{HEAD.format(1)}{QUEUE}\n{graph.splitlines()[-1]}")
    assert trace.notes == ("1 lines of function_graph, left out",)


def test_the_lines_of_another_tracer_are_its_events(tmp_path: Path) -> None:
    line = HEAD.format(1) + "#1 context irq timer_latency 932 ns"
    trace = read(tmp_path, f"# tracer: timerlat\n{line}\n{HEAD.format(2)}{QUEUE}")
    assert own(trace, "timerlat") == {"text": ["#1 context irq timer_latency 932 ns"]}
    assert len(trace.events["net_dev_queue"]) == 1


def test_lines_that_are_not_understood_are_counted(tmp_path: Path) -> None:
    text = f"{HEAD.format(1)}{QUEUE}\nwhat is this\n{HEAD.format(2)}0:120:R ==> [003] 7:120:R ping"
    (note,) = read(tmp_path, text).notes
    assert note.startswith("2 lines not understood, such as 'what is this'")


def test_times_without_a_unit_are_said_to_have_none(tmp_path: Path) -> None:
    (note,) = read(tmp_path, f"ping-771 [001] .....  5: {QUEUE}").notes
    assert "not nanoseconds" in note


# --- time -----------------------------------------------------------------------------------------

LONG_LINES: dict[str, Callable[[int], str]] = {
    "other fields in every line": lambda n: "\n".join(
        f"{HEAD.format(i)}x: key{i}={i}" for i in range(n // 8)
    ),
    "lost events on other CPUs": lambda n: (
        "\n".join(f"CPU:{i % 9000} [LOST 1 EVENTS]" for i in range(n // 4))
        + f"\n{HEAD.format(1)}{QUEUE}"
    ),
    "spaces": lambda n: HEAD.format(1) + "x: a=" + " " * n + "b\n" + "a:" + " " * n + "b",
    "blanks alone": lambda n: HEAD.format(1) + QUEUE + "\n" + " " * n + "x",
    "dashes and digits": lambda n: HEAD.format(1) + QUEUE + "\n" + "-1 (" * n,
    "brackets": lambda n: HEAD.format(1) + QUEUE + "\n" + "\t81e65af60 (" * n,
    "arguments": lambda n: HEAD.format(1) + "sys_x(" + "a " * n + "b: 1, " * n + ")",
    "a marker's lines": lambda n: HEAD.format(1) + "print: 0: a" + "\nb\n" * n,
    "digits": lambda n: HEAD.format(1) + QUEUE + "\nx 771 " + "1" * n + " net:net_dev_queue: ",
}


@pytest.mark.parametrize("kind", LONG_LINES)
def test_time_grows_with_the_text_and_not_faster(tmp_path: Path, kind: str) -> None:
    def seconds(size: int) -> float:
        text = LONG_LINES[kind](size)
        best = 1e9
        for _ in range(3):
            start = time.process_time()
            read(tmp_path, text)
            best = min(best, time.process_time() - start)
        return best

    # Twice as much for each doubling would be 16; squares give 256.
    assert seconds(64_000) < 16 * 3 * max(seconds(4_000), 0.002)
