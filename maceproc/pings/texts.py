"""A text into lines: what terminals and collectors of logs add is taken off.

What stands before a ping's words in a line needs no care: the forms of lines look anywhere in it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# ECMA-48: control sequences (colours) and operating system commands (titles, links); ECMA-35:
# sequences that choose a character set.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]{0,40}[ -/]{0,5}[@-~]|\x1b\][^\x07\x1b]{0,400}(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|"
    r"\x1b[ -/]{1,3}[0-~]|\x1b[0-?]"
)
# Where the cursor is put elsewhere, as noping does, another line begins.
_CURSOR = re.compile(r"\x1b\[[0-9;]{0,20}[Hd]")
# The last ones are surrogates: half of a character, which no table can hold.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_CARET_C = re.compile(r"^(?:\^C|\^\\)+")
_END_OF_LINE = re.compile(r"\r{0,3}\n|\r")
# What collectors of logs put before a line, where nothing follows: the line was blank.
_NOTHING_ELSE = re.compile(
    r"[\s>|#*]{0,100}"
    r"(?:[^\s|]{1,100} {0,100}\|)?"  # docker compose
    r"(?:\[[^\]]{1,200}\])?"  # a pod, a time
    r"(?:(?:[A-Z][a-z]{2} {1,2}\d{1,2} |\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?:Z|[+-]\d\d:?\d\d)?|\d{1,12}(?:\.\d{1,9})?)?"
    r"(?: [\w.-]{1,255} [\w./-]{1,100}(?:\[\d{1,10}\])?:)?"  # syslog: host and program
    r"\s{0,100}"
)
# docker compose: "probe-1  | "
_LABEL = re.compile(r"^([^\s|]{1,100})\s{0,100}\| ?")


class TextLine(NamedTuple):
    """One line of a text, clean; and whether its end is there too."""

    text: str
    whole: bool


def lines_of(text: str) -> list[TextLine]:
    """Split a text into its lines, without colours and control characters; blank ones too."""
    pieces = _END_OF_LINE.split(_ESCAPES.sub("", _CURSOR.sub("\n", text)))
    lines = [TextLine(_clean(piece), True) for piece in pieces[:-1]]
    if pieces[-1]:
        lines.append(TextLine(_clean(pieces[-1]), False))
    return lines


def _clean(line: str) -> str:
    return _CARET_C.sub("", _CONTROLS.sub("", line))


def is_blank(line: str) -> bool:
    """Tell whether a line holds nothing, but for what was put before it."""
    return not line.strip() or (len(line) < 500 and _NOTHING_ELSE.fullmatch(line) is not None)


# Where a ping's own words begin in a line.
_WORDS = re.compile(r"PING |Ping |--- \S|\d{1,6} bytes from ")


def prefixes_of(lines: list[TextLine]) -> frozenset[str]:
    """Return what stands before a ping's words in lines, with every number as 0.

    That is also the shortest line, if all others begin with it and have more.
    """
    starts = ((line.text[:1000], _WORDS.search(line.text[:1000])) for line in lines)
    found = {_shape(text[: match.start()]) for text, match in starts if match and match.start()}
    shapes = {_shape(line.text[:1000]) for line in lines} - {""}
    shortest = min(shapes, key=len, default="")
    if len(shapes) > 2 and all(shape.startswith(shortest) for shape in shapes):
        found.add(shortest)
    return frozenset(found - {""})


def is_only(prefixes: frozenset[str], line: str) -> bool:
    """Tell whether a line holds nothing behind what stands before a ping's words elsewhere."""
    return len(line) < 1000 and _shape(line) in prefixes


def _shape(text: str) -> str:
    return re.sub(r"\d+", "0", text).strip()


def streams_of(lines: list[TextLine]) -> list[list[TextLine]]:
    """Part the lines of several programs by the label that docker compose puts before each."""
    labels = [_LABEL.match(line.text) for line in lines]
    streams: dict[str, list[TextLine]] = {}
    for line, label in zip(lines, labels, strict=True):
        if label:
            rest = TextLine(line.text[label.end() :], line.whole)
            streams.setdefault(label[1], []).append(rest)
        elif line.text.strip():
            return [lines]  # not every line has one
    return list(streams.values()) or [lines]
