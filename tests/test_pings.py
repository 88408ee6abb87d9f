"""What pings print is read by all lines together; what is not known is not made up."""

from __future__ import annotations

import time

import pytest

from maceproc.capture import Run
from maceproc.pings import PingOutput, parse_ping, parse_runs, pings_table, rows_of_run
from tests.ping_texts import REAL, WRITTEN

TEXTS = REAL | WRITTEN


def row_text(row: dict[str, object]) -> str:
    return f"{row['seq']}:{row['status']}:{row.get('rtt_ns')}"


def brief(output: PingOutput) -> str:
    rows = [row_text(row) for row in rows_of_run(output)]
    counts = f"{output.sent}/{output.received}"
    return " ".join([output.flavour, str(output.first_seq), counts, *rows])


def one(text: str, *argv: str) -> PingOutput:
    (output,) = parse_ping(text, argv)
    return output


@pytest.mark.parametrize("name", TEXTS)
def test_every_program(name: str) -> None:
    text, right = TEXTS[name]
    output = one(text)
    assert brief(output) == right
    assert output.not_understood == 0, output.not_understood_first
    assert output.flavour_why
    assert output.first_seq_why


PREFIXES = [
    "probe-1  | ",
    "    ",
    "> ",
    "Nov 27 05:22:39 ",
    "Nov 27 05:22:39 host ping[1234]: ",
    "2026-11-27T05:22:39.123456Z ",
    "2026-11-27T05:22:39+00:00 host ping: ",
    "[2026-11-27 05:22:39] ",
    "1795756953.679887 ",
    "05:22:39.123 ",
    "[pod/probe/ping] ",
    "12\t",
    "<13>1 2026-11-27T08:00:01.003Z host ping 4711 - - ",
    "2026-11-27 08:00:01,123 INFO [main] runner - ",
    "\x1b[36mweb-1  | \x1b[0m",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["busybox", "iputils -D -O", "inetutils", "fping -D", "oping"])
def test_words_before_every_line_change_nothing(name: str, prefix: str) -> None:
    text, right = TEXTS[name]
    prefixed = "".join(prefix + line for line in text.splitlines(keepends=True))
    assert brief(one(prefixed)) == right
    stamps = [row.get("received_at_ns") for row in one(prefixed).answers]
    assert stamps == [row.get("received_at_ns") for row in one(text).answers]


def test_a_name_of_a_file_before_every_line() -> None:
    text, right = TEXTS["iputils -D -O"]
    lines = text.splitlines(keepends=True)
    prefixed = "".join(f"logs/ping.txt:{number}:{line}" for number, line in enumerate(lines, 1))
    assert brief(one(prefixed)) == right
    assert not one(prefixed).not_understood


@pytest.mark.parametrize("name", TEXTS)
def test_ends_of_lines_and_colours_change_nothing(name: str) -> None:
    text, right = TEXTS[name]
    assert brief(one(text.replace("\n", "\r\n"))) == right
    assert brief(one(text.replace("bytes", "\x1b[1mbytes\x1b[0m"))) == right


def test_compose_parts_the_lines_of_two_services() -> None:
    first, second = (TEXTS[name][0].splitlines() for name in ("busybox", "inetutils"))
    lines = [
        line
        for one_line, other in zip([*first, ""], [*second, "", ""], strict=False)
        for line in (f"a-1   | {one_line}", f"bee-1 | {other}")
    ]
    outputs = parse_ping("\n".join(lines) + "\n")
    assert [brief(output) for output in outputs] == [
        TEXTS["busybox"][1],
        TEXTS["inetutils"][1],
    ]


def test_pings_at_once_are_told_by_their_targets() -> None:
    other = "192.0.2.3"
    theirs = [line.replace("192.0.2.1", other) for line in (IPUTILS, *map(reply, (1, 2, 3)))]
    ours = [IPUTILS, *map(reply, (1, 2))]
    ends = [SUMMARY.format(3, 3).replace("192.0.2.1", other), SUMMARY.format(2, 2)]
    mixed = [theirs[0], theirs[1], ours[0], ours[1], theirs[2], ours[2], theirs[3], *ends]
    first, second = parse_ping("".join(mixed))
    assert [(o.target, o.sent, len(o.answers)) for o in (first, second)] == [
        (other, 3, 3),
        ("192.0.2.1", 2, 2),
    ]
    run = Run(round=1, place="container", traced=True, argv=["sh"], output="".join(mixed))
    assert [output.targets for _, output in parse_runs([run])] == [2, 2]
    # A ping that was killed prints no summary; the next one has its own lines.
    killed, after = parse_ping("".join([*theirs[:2], *ours, SUMMARY.format(2, 2)]))
    assert (len(killed.answers), len(after.answers)) == (1, 2)


def test_a_screen_is_read_as_lines() -> None:
    screen = (
        "\x1b[?1049h\x1b[1;24r\x1b(B\x1b[m\x1b[H\x1b[2JPING 192.0.2.1 (192.0.2.1) 56 bytes of data."
        "\x1b[18;1H56 bytes from 192.0.2.1 (192.0.2.1): icmp_seq=1 ttl=64 "
        "time=\x1b[31m0.04\x1b[39m\x1b(B\x1b[m ms\r\x1b[19d\x1b[24;1H\x1b[?1049l\x1b>"
    )
    output = one(screen)
    assert brief(output) == "oping 1 None/None 1:replied:40000"
    assert not output.not_understood


def test_several_runs_follow_one_another() -> None:
    names = ["busybox", "iputils -v", "iputils -p", "inetutils", "iputils -f", "oping"]
    outputs = parse_ping("".join(TEXTS[name][0] for name in names))
    assert [brief(output) for output in outputs] == [TEXTS[name][1] for name in names]


FPING_TWO = """\
192.0.2.1            : [0], 64 bytes, 0.153 ms (0.153 avg, 0% loss)
b.example (192.0.2.2) : [0], timed out (NaN avg, 100% loss)
192.0.2.1            : [1], 64 bytes, 0.116 ms (0.134 avg, 0% loss)
b.example (192.0.2.2) : [1], timed out (NaN avg, 100% loss)

192.0.2.1            : xmt/rcv/%loss = 2/2/0%, min/avg/max = 0.116/0.134/0.153
b.example (192.0.2.2) : xmt/rcv/%loss = 2/0/100%
"""


def test_targets_are_kept_apart() -> None:
    outputs = parse_ping(FPING_TWO)
    assert [(o.target, o.targets) for o in outputs] == [
        ("192.0.2.1", 2),
        ("b.example (192.0.2.2)", 2),
    ]
    assert brief(outputs[0]) == "fping 0 2/2 0:replied:153000 1:replied:116000"
    assert brief(outputs[1]) == "fping 0 2/0 0:unanswered:None 1:unanswered:None"
    run = Run(round=1, place="container", traced=True, argv=["fping"], output=FPING_TWO)
    table = pings_table(parse_runs([run]))
    assert table["target"].value_counts().to_dict() == {
        "192.0.2.1": 2,
        "b.example (192.0.2.2)": 2,
    }


def test_targets_of_oping() -> None:
    outputs = parse_ping(
        "PING 127.0.0.1 (127.0.0.1) 56 bytes of data.\n"
        "PING localhost (127.0.0.1) 56 bytes of data.\n"
        "56 bytes from 127.0.0.1 (127.0.0.1): icmp_seq=1 ttl=64 time=0.03 ms\n"
        "56 bytes from localhost (127.0.0.1): icmp_seq=1 ttl=64 time=0.00 ms\n\n"
        "--- 127.0.0.1 ping statistics ---\n"
        "1 packets transmitted, 1 received, 0.00% packet loss, time 0.1ms\n\n"
        "--- localhost ping statistics ---\n"
        "1 packets transmitted, 1 received, 0.00% packet loss, time 0.0ms\n"
    )
    assert [brief(o) for o in outputs] == ["oping 1 1/1 1:replied:30000", "oping 1 1/1 1:replied:0"]


def reply(seq: int, word: str = "icmp_seq", time: str = "0.100 ms") -> str:
    return f"64 bytes from 192.0.2.1: {word}={seq} ttl=63 time={time}\n"


IPUTILS = "PING 192.0.2.1 (192.0.2.1) 56(84) bytes of data.\n"
OLD_COUNTS = "2 packets transmitted, 2 packets received, 0% packet loss\n"


def test_seq_0_refutes_that_ping_counts_from_1() -> None:
    output = one(IPUTILS + reply(0) + reply(1))
    assert (output.flavour, output.first_seq) == ("unknown", 0)
    assert "counts from 0" in output.flavour_why
    assert output.stamped_by is None


def test_another_programs_header_decides_nothing() -> None:
    output = one(IPUTILS + reply(1, "seq") + reply(2, "seq") + OLD_COUNTS)
    assert output.flavour == "unknown"
    assert "different programs" in output.flavour_why
    assert output.first_seq == 1  # two requests, and these two numbers
    output = one(IPUTILS + reply(1, "seq") + OLD_COUNTS.replace("2 packets", "3 packets", 1))
    assert output.first_seq is None


def test_without_a_header_the_numbers_decide_or_nothing() -> None:
    assert one(reply(1) + reply(2)).first_seq is None
    assert one(reply(0) + reply(1)).first_seq == 0
    counted = one(reply(1) + reply(2) + OLD_COUNTS)
    assert (counted.flavour, counted.first_seq) == ("unknown", 1)  # inetutils counts from 0


def test_command_line_tells_the_program() -> None:
    quiet = "PING a (192.0.2.1): 56 data bytes\n" + OLD_COUNTS
    assert one(quiet).flavour == "unknown"
    assert one(quiet, "busybox", "ping", "-q", "a").flavour == "busybox"
    contradicted = one(TEXTS["fping -D"][0], "busybox", "ping")
    assert contradicted.flavour == "unknown"
    assert one(TEXTS["iputils -D -O"][0], "ping", "-nU", "a").stamped_by == "program"
    assert one(TEXTS["iputils -D -O"][0], "ping", "-I", "U", "a").stamped_by == "kernel"


@pytest.mark.parametrize(
    ("name", "stamp"),
    [
        *(("busybox", "program"), ("inetutils", "program"), ("Go, go-ping", "program")),
        *(("iputils -D -O", "kernel"), ("fping -D", "kernel"), ("oping", "kernel")),
    ],
)
def test_who_takes_the_stamp(name: str, stamp: str) -> None:
    assert one(TEXTS[name][0]).stamped_by == stamp


def test_a_reply_stands_beside_what_icmp_says() -> None:
    redirect = "From 192.0.2.254 icmp_seq=1 Redirect Host(New nexthop: 192.0.2.7)\n"
    for text in (redirect + reply(1), reply(1) + redirect):
        output = one(IPUTILS + text)
        assert brief(output) == "iputils 1 None/None 1:replied:100000"
        assert "Redirect Host" in output.answers[0]["message"]
    alone = one(IPUTILS + redirect)
    assert brief(alone) == "iputils 1 None/None 1:unanswered:None"


def test_marks_of_a_reply() -> None:
    text = IPUTILS + reply(1).replace(" ms", " ms (DIFFERENT ADDRESS!)")
    assert one(text).answers[0]["message"] == "it came from another address"
    bad = one(IPUTILS + reply(1).replace(" ms", " ms (BAD CHECKSUM!)"))
    assert brief(bad) == "iputils 1 None/None 1:error:None"
    cut = one(IPUTILS + "44 bytes from 192.0.2.1: icmp_seq=1 ttl=116 (truncated)\n")
    assert cut.answers[0]["message"] == "the reply was truncated: 44 of 64 bytes came back"


@pytest.mark.parametrize(
    ("printed", "rtt_ns", "step_ns"),
    [
        ("0.129 ms", 129_000, 1000),
        ("1.29 ms", 1_290_000, 10_000),
        ("12.9 ms", 12_900_000, 100_000),
        ("129 ms", 129_000_000, 1_000_000),
        ("153.25µs", 153_250, 10),
        ("1.116004ms", 1_116_004, 1),
        ("0s", 0, 1_000_000_000),
    ],
)
def test_step_is_the_unit_of_the_last_digit(printed: str, rtt_ns: int, step_ns: int) -> None:
    (row,) = one(reply(1, time=printed)).answers
    assert (row["rtt_ns"], row["rtt_resolution_ns"]) == (rtt_ns, step_ns)


@pytest.mark.parametrize("printed", ["<1 ms", "0.153", "0.153 lightyears", "-0.1 ms", "1.2.3 ms"])
def test_a_time_that_is_no_time_is_told_not_read(printed: str) -> None:
    (row,) = one(reply(1, time=printed).replace("=<", "<")).answers
    assert row["status"] == "replied"
    assert row.get("rtt_ns") is None
    assert "1 ms" in row["message"] or "not understood" in row["message"]


def test_a_time_of_another_language_that_is_no_time_is_told_too() -> None:
    (row,) = one(IPUTILS + "64 Bytes von 192.0.2.1: icmp_seq=1 ttl=63 Zeit=0,153 ms\n").answers
    assert row.get("rtt_ns") is None
    assert row["message"] == "the printed time '0,153 ms' was not understood"


def test_payload_of_fping() -> None:
    old = "192.0.2.1 : [0], {} bytes, 0.15 ms (0.15 avg, 0% loss)\n"
    assert one(old.format(84)).payload_bytes == 56
    assert one(old.format(128)).payload_bytes == 100
    new = "{} : [0], {} bytes, 0.153 ms (0.153 avg, 0% loss)\n"
    assert one(new.format("192.0.2.1", 64)).payload_bytes == 56
    assert one(new.format("192.0.2.1", 108)).payload_bytes is None  # of 5.0 or of 4.4?
    assert one(new.format("192.0.2.1", 108), "fping", "-b", "100").payload_bytes == 100
    assert one(new.format("2001:db8::1", 108)).payload_bytes == 100


SUMMARY = (
    "\n--- 192.0.2.1 ping statistics ---\n{} packets transmitted, {} received, 0% packet loss\n"
)


def reasons(output: PingOutput) -> dict[int, str]:
    return {row["seq"]: row["message"] for row in rows_of_run(output) if row["message"]}


def test_a_reason_is_never_a_guess() -> None:
    lost = IPUTILS + reply(1) + reply(3)
    assert reasons(one(lost + SUMMARY.format(3, 2))) == {2: "no reply"}
    missing = reasons(one(lost + SUMMARY.format(3, 3)))[2]
    assert "whether it was answered is not known" in missing
    assert "no summary" in reasons(one(lost))[2]
    quiet = one(IPUTILS + SUMMARY.format(2, 1), "ping", "-q", "192.0.2.1")
    assert reasons(quiet)[1].startswith("ping printed no line for it: 1 of 2")
    unread = one(IPUTILS + "?\n" * 3 + SUMMARY.format(2, 2))
    assert "ping printed no line" not in reasons(unread)[1]
    assert "not all lines were understood" in reasons(unread)[1]


def test_cut_texts() -> None:
    text, _ = TEXTS["iputils -D -O"]
    for start in range(0, len(text), 7):
        for end in range(start + 1, len(text), 11):
            for output in parse_ping(text[start:end]):
                for row in rows_of_run(output):
                    rtts = {1: 27_000, 2: 41_000}
                    assert row["seq"] in rtts
                    assert row.get("rtt_ns") in (None, rtts[row["seq"]])


def test_a_text_without_its_beginning_makes_up_no_earlier_pings() -> None:
    output = one("".join(reply(seq) for seq in range(5000, 5010)))
    assert [row["seq"] for row in rows_of_run(output)] == list(range(5000, 5010))


def test_icmp_seq_wraps() -> None:
    numbers = [*range(65530, 65536), *range(5)]
    output = one("".join(reply(seq) for seq in numbers))
    assert [row["seq"] for row in output.answers] == list(range(65530, 65541))
    numbers = [seq % 65536 for seq in range(1, 70001)]
    output = one(IPUTILS + "".join(map(reply, numbers)) + SUMMARY.format(70000, 70000))
    assert output.first_seq == 1
    assert [row["seq"] for row in rows_of_run(output)] == list(range(1, 70001))


@pytest.mark.parametrize("seq", [0, 6, 700, 60000, 65535, 65536, 999999999])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("summary", [SUMMARY.format(3, 3), ""])
def test_a_strange_reply_makes_up_no_pings(seq: int, place: int, summary: str) -> None:
    lines = [reply(1), reply(2), reply(3)]
    lines.insert(place, reply(seq))
    rows = rows_of_run(one(IPUTILS + "".join(lines) + summary))
    good = [(row["seq"], row["status"]) for row in rows if row["seq"] in (1, 2, 3)]
    assert sorted(good) == [(1, "replied"), (2, "replied"), (3, "replied")]
    if summary:
        assert [row["status"] for row in rows if row["seq"] not in (1, 2, 3)] == ["error"]
    assert len(rows) <= 6


def test_absurd_counts_make_no_rows() -> None:
    output = one(IPUTILS + SUMMARY.format(10**11, 10**11))
    assert rows_of_run(output) == []
    assert "get no row" in output.remarks[0]
    assert one(IPUTILS + reply(1) + SUMMARY.format("9" * 200, 1)).sent is None


@pytest.mark.parametrize("dots", [10, 20_000, 2_000_000])
def test_a_floods_dots_are_on_one_line(dots: int) -> None:
    text = (
        "PING 192.0.2.2 (192.0.2.2) 56(84) bytes of data.\n" + "....\b \b\b \b" * (dots // 4) + "\n"
        "--- 192.0.2.2 ping statistics ---\n"
        f"{dots} packets transmitted, {dots} received, 0% packet loss, time 1439ms\n"
    )
    (output,) = parse_ping(text)
    assert output.quiet
    assert (output.not_understood, output.misread) == (0, False)


def test_lines_not_understood_are_counted_and_kept() -> None:
    output = one(IPUTILS + "one\n" + reply(1) + "two\nthree\nfour\n" + "x" * 5000 + "\n")
    assert output.not_understood == 5
    assert output.not_understood_first == ["one", "two", "three"]
    windows = (
        "Pinging 192.0.2.1 with 32 bytes of data:\nReply from 192.0.2.1: bytes=32 time<1ms TTL=63\n"
    )
    output = one(windows)
    assert (output.not_understood, rows_of_run(output)) == (2, [])
    assert "Windows" in output.refused


HOSTILE = {
    "digits": "9" * 100_000,
    "spaces": " " * 100_000,
    "spaces in lines": (" " * 900 + "\n") * 100,
    "half replies": "64 bytes from " * 8000,
    "half replies in lines": ("64 bytes from a" + " from a" * 120 + "\n") * 100,
    "targets": (": [0], " * 140 + "\n") * 100,
    "words": ("a b " * 240 + ": [0], 1 bytes\n") * 100,
    "numbers": ("1 a 1 a " * 120 + " ttl=1\n") * 100,
    "equals": ("a=1 " * 240 + "\n") * 100,
    "commas": ("1 a, " * 190 + "%\n") * 100,
    "brackets": ("PING a (" + "(" * 800 + "\n") * 100,
    "headers": ("PING a (a) " + "1(1) " * 180 + "\n") * 100,
    "results": "a : " + "0.1 " * 25_000,
    "dashes": ("-- a " * 190 + "\n") * 100,
    "json": '{"resp": ' * 11_000 + "}" * 11_000,
    "escapes": "\x1b[" * 50_000,
    "labels": ("a" * 99 + " " * 99 + "|\n") * 500,
    "floods": ("." * 900 + "x\n") * 100,
    "dots": "." * 100_000,
    "numbers in JSON": '{"resp": {"seq": ' + "1" * 99_000 + ', "rtt": 1}}\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_reading_takes_linear_time(name: str) -> None:
    def seconds(times: int) -> float:
        begin = time.process_time()
        for output in parse_ping(HOSTILE[name] * times):
            rows_of_run(output)
        return time.process_time() - begin

    seconds(1)
    once, four_times = seconds(1), seconds(4)
    assert four_times < 12 * once + 0.5  # quadratic would be 16 times


def test_real_text_of_100_000_replies_is_read_in_linear_time() -> None:
    text = "".join(reply(seq % 65536) for seq in range(1, 20_001))
    assert len(one(IPUTILS + text).answers) == 20_000
