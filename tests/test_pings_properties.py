"""What is written is read back, by every program, whatever is lost, doubled, put before or cut."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from maceproc.pings import parse_ping, rows_of_run
from tests.ping_writer import FIRST_SEQ, WRITERS, Request, ms
from tests.test_pings import PREFIXES, brief

RTTS_US = st.integers(1, 900) | st.integers(1, 20_000_000)
REQUESTS = st.lists(
    st.builds(Request, st.none() | RTTS_US, st.none() | RTTS_US), min_size=1, max_size=12
)
FLAVOURS = st.sampled_from(sorted(WRITERS))

Row = tuple[int, str, int | None, int | None]


def printed(rtt_us: int) -> tuple[int, int]:
    """Return value and step [ns] of a printed time, by another way than the parser's."""
    text = ms(rtt_us)
    step = Fraction(1, 10 ** len(text.partition(".")[2]))
    return int(Fraction(text) * 1_000_000), int(step * 1_000_000)


def right(requests: list[Request], first: int) -> list[Row]:
    rows: list[Row] = []
    for seq, request in enumerate(requests, start=first):
        if request.rtt_us is None:
            rows.append((seq, "unanswered", None, None))
            continue
        rows.append((seq, "replied", *printed(request.rtt_us)))
        if request.again_us is not None:
            rows.append((seq, "duplicate", *printed(request.again_us)))
    return sorted(rows, key=str)


def read(text: str) -> list[Row]:
    rows = [row for output in parse_ping(text) for row in rows_of_run(output)]
    return sorted(
        ((r["seq"], r["status"], r.get("rtt_ns"), r.get("rtt_resolution_ns")) for r in rows),
        key=str,
    )


@given(FLAVOURS, REQUESTS, st.sampled_from(["", *PREFIXES]))
def test_what_is_written_is_read_back(flavour: str, requests: list[Request], prefix: str) -> None:
    text = WRITERS[flavour](requests, FIRST_SEQ[flavour])
    text = "".join(prefix + line for line in text.splitlines(keepends=True))
    (output,) = parse_ping(text)
    received = sum(request.answered for request in requests)
    assert (output.sent, output.received) == (len(requests), received)
    assert output.not_understood == 0
    # With every reply lost, inetutils' lines are busybox' too; both count from 0.
    assert output.flavour in (flavour, "unknown")
    assert output.flavour == flavour or received == 0
    assert output.first_seq == FIRST_SEQ[flavour]
    assert read(text) == right(requests, FIRST_SEQ[flavour])


@given(FLAVOURS, REQUESTS, st.data())
def test_a_cut_text_says_less_and_nothing_else(
    flavour: str, requests: list[Request], data: st.DataObject
) -> None:
    text = WRITERS[flavour](requests, FIRST_SEQ[flavour])
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    truth = right(requests, FIRST_SEQ[flavour])
    times = {(seq, rtt_ns) for seq, _, rtt_ns, _ in truth}
    numbers = {seq for seq, _ in times}
    for seq, _, rtt_ns, _ in read(text[start:end]):
        assert seq in numbers
        assert rtt_ns is None or (seq, rtt_ns) in times


@given(FLAVOURS, REQUESTS, st.data())
def test_lines_lost_never_move_a_number(
    flavour: str, requests: list[Request], data: st.DataObject
) -> None:
    lines = WRITERS[flavour](requests, FIRST_SEQ[flavour]).splitlines(keepends=True)
    kept = data.draw(st.lists(st.booleans(), min_size=len(lines), max_size=len(lines)))
    text = "".join(line for line, keep in zip(lines, kept, strict=True) if keep)
    times = {(seq, rtt_ns) for seq, _, rtt_ns, _ in right(requests, FIRST_SEQ[flavour])}
    for output in parse_ping(text):
        assert output.first_seq in (None, FIRST_SEQ[flavour])
        for row in output.answers:
            assert row.get("rtt_ns") is None or (row["seq"], row["rtt_ns"]) in times


@given(FLAVOURS, REQUESTS, st.integers(1, 3))
def test_shifted_numbers_are_not_taken_for_right(
    flavour: str, requests: list[Request], shift: int
) -> None:
    """A numbering moved by some is another first number, or no row of the right one is replied."""
    text = WRITERS[flavour](requests, FIRST_SEQ[flavour] + shift)
    (output,) = parse_ping(text)
    replied = {row["seq"] for row in output.answers if row["status"] == "replied"}
    if len(replied) == len(requests):  # every number is known: nothing hides the shift
        assert output.first_seq == FIRST_SEQ[flavour] + shift


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300), FLAVOURS)
def test_any_words_between_the_lines(words: str, flavour: str) -> None:
    text = WRITERS[flavour]([Request(150), Request(116)], FIRST_SEQ[flavour])
    for output in parse_ping(words + "\n" + text):
        rows_of_run(output)
        assert output.first_seq in (None, 0, 1)


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 4), st.sampled_from(["iputils", "busybox", "inetutils", "oping", "go"]))
def test_numbers_wrap(lost: int, flavour: str) -> None:
    count = 65540
    requests = [Request(100)] * count
    requests[65534 : 65534 + lost] = [Request(None)] * lost
    text = WRITERS[flavour](requests, FIRST_SEQ[flavour])
    (output,) = parse_ping(text)
    first = FIRST_SEQ[flavour]
    assert sorted(row["seq"] for row in rows_of_run(output)) == list(range(first, first + count))
    assert brief(output).startswith(f"{flavour} {first} ")
