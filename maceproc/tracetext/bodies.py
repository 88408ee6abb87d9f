"""The rest of a line: the event's name, its fields under the kernel's names, and its text.

A field is found by its name (``len=98``, ``len: 0x62``, ``len = 98``), never by its place. What is
not in a field is not lost: the column ``text`` then has the whole text of the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = "str | int | tuple[int | str, ...]"
Fields: TypeAlias = "dict[str, Value]"

TEXT = "text"  # the column of what is in no field

# name=value, name = value, and name: value; also the first word of a comment in brackets.
FIELD = re.compile(
    r"(?:^|(?<=[\s,;|(]))\[?(?P<name>[A-Za-z_]\w*)(?P<sign>=(?!=)|\s=\s|:\s)", re.ASCII
)
# Fields that can hold any text, also `word: `.
FREE_TEXT = re.compile(r"comm$|^(?:filename|path|buf|str|msg)$")
ARROWS = (" ==>", " -->", " =>", " ->")  # between the values of two tasks or states

NAMED = re.compile(r"^(?P<event>[A-Za-z_]\w*):(?:\s+(?P<text>.*))?$", re.ASCII | re.DOTALL)

# kernel/trace/trace_syscalls.c, print_syscall_enter() and print_syscall_exit(): sys_sendto(fd: 3,
# buff: ...) and sys_sendto -> 0x40. Before v6.18 arguments are hexadecimal without 0x; since then
# numbers from 10 on have it. Either way they are hexadecimal.
SYSTEM_CALL = re.compile(r"^sys_(?P<call>\w+)(?:\((?P<arguments>.*)\)?|\s+->\s*(?P<ret>\S.*))$")
HEXADECIMAL = re.compile(r"^(?:0x)?(?P<digits>[0-9a-f]{1,16})\b")
# include/trace/events/syscalls.h, v6.8: NR 44 (5, 559f6e898b40, ...) in hexadecimal, NR 44 = 64.
RAW_ENTER = re.compile(r"^NR (?P<id>-?\d{1,9}) \((?P<args>[0-9a-f, ]*)\)$")
RAW_EXIT = re.compile(r"^NR (?P<id>-?\d{1,9}) = (?P<ret>-?\d{1,19})$")

# What is written to trace_marker and by trace_printk(): the symbol of the caller, then the text
# (kernel/trace/trace_output.c, trace_print_print(), v6.18). The symbol can be a name with an offset
# or a compiler's suffix, an address, 0, or nothing.
MARKERS = {
    "tracing_mark_write": "print",
    "tracing_mark_raw_write": "print",
    "write_marker_to_buffer": "print",
    "write_raw_marker_to_buffer": "print",
    "print": "print",
    "bprint": "bprint",
    "bputs": "bputs",
}
SYMBOL = (
    r"(?:0x[0-9a-f]+|[0-9a-f]+|[A-Za-z_.$][\w.$]*(?:\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?)?)"
    r"(?: \[[\w-]+\])?(?: <[0-9a-f]+>)?"
)
MARKER = re.compile(
    r"^(?P<ip>[^\s:]*(?: \[[\w-]+\])?(?: <[0-9a-f]+>)?):(?: (?P<buf>.*))?$", re.DOTALL
)
BARE_ADDRESS = re.compile(r"^[0-9a-f]{8,16}$")

# function: ip_send_skb <-ping_v4_push_pending_frames; br_forward [bridge] <-...; with arguments
# since v6.15. trace-cmd report writes <-- and puts the event's name before it.
FUNCTION = re.compile(rf"^(?P<ip>{SYMBOL}(?:\(.*\))?)\s+<--?\s*(?P<parent_ip>{SYMBOL})\s*$")
STACKS = {"<stack trace>": "kernel_stack", "<user stack trace>": "user_stack"}
CALLER = re.compile(r"^\s*=>\s+(?P<caller>\S.*)$")

# kernel/trace/trace_kprobe.c, v6.8: (function+0x0/0x40) arg1=..., and on return (to <- from).
PROBE = re.compile(r"^\((?P<first>[^\s()]+)(?: <- (?P<second>[^\s()]+))?\)(?:\s|$)")

# Events whose print format is a sentence, with the kernel's names for what it holds.
SENTENCES = {
    # include/trace/events/napi.h, v6.18; without work and budget before v4.10.
    "napi_poll": re.compile(
        r"^napi poll on napi struct (?P<napi>\S+) for device (?P<dev_name>\S+)"
        r"(?: work (?P<work>\d{1,9}) budget (?P<budget>\d{1,9}))?$"
    ),
    # include/trace/events/workqueue.h, v6.18.
    "workqueue_execute_start": re.compile(
        r"^work struct (?P<work>\S+): function (?P<function>\S+)$"
    ),
    "workqueue_execute_end": re.compile(r"^work struct (?P<work>\S+): function (?P<function>\S+)$"),
    # trace-cmd report, which has the names of events that other programs print without.
    "kernel_stack": re.compile(r"^<stack trace\s*>$"),
    "function": re.compile(rf"^(?P<ip>{SYMBOL})(?:\s+<--?\s*(?P<parent_ip>{SYMBOL}))?$"),
}
# include/trace/events/net.h, v6.18: the field `name` is printed as dev=.
DEVICE_EVENT = re.compile(r"^(?:net_dev_|netif_|napi_gro_)")


@dataclass
class Body:
    """An event as one line tells it."""

    event: str
    fields: Fields = field(default_factory=dict)
    is_cut: bool = False  # the line stops before the end that its form has


def body_of(text: str, event: str = "") -> Body | None:
    """Read the rest of a line; None when it is no event, function or marker.

    `event` is the event's name where the start of the line has it already.
    """
    if event:
        return _event(event, text)
    if text.startswith("("):  # trace-cmd report --ts-diff
        text = re.sub(r"^\(\+?-?\d+\)\s+", "", text, count=1)
    if text.startswith("<") and (stack := STACKS.get(text.strip())):
        return Body(stack)
    if " <-" in text and (function := FUNCTION.match(text)):
        return Body("function", dict(function.groupdict()))
    return _named(text)


def _named(text: str) -> Body | None:
    """Read a text that begins with a name: of an event, a system call, or a marker's symbol."""
    named = NAMED.match(text)
    if named and not BARE_ADDRESS.match(named["event"]):
        return _event(named["event"], named["text"] or "")
    if call := SYSTEM_CALL.match(text):
        return _system_call(call)
    if marker := MARKER.match(text):
        return Body("print", {"ip": marker["ip"], "buf": marker["buf"] or ""})
    return None


def _event(event: str, text: str) -> Body:
    """Read an event of known name: in its own form, if it has one, else by its fields' names."""
    if event in MARKERS:
        return Body(MARKERS[event], _marker(event, text))
    text = text.strip()
    prefix = ""
    if event.startswith("sys_"):
        prefix = next((start for start in CALLS if event.startswith(start)), "")
    own_form = OWN_FORMS.get(prefix or event)
    fields = own_form(event, text) if own_form else None
    return Body(event, _fields(event, text) if fields is None else fields)


def _raw_enter(_: str, text: str) -> Fields | None:
    if not (raw := RAW_ENTER.match(text)):
        return None
    words = [word for word in raw["args"].replace(",", " ").split() if len(word) <= 16]
    return {"id": int(raw["id"]), "args": tuple(int(word, 16) for word in words)}


def _raw_exit(_: str, text: str) -> Fields | None:
    raw = RAW_EXIT.match(text)
    return {"id": int(raw["id"]), "ret": int(raw["ret"])} if raw else None


def _sys_enter(_: str, text: str) -> Fields | None:
    return _arguments(text)[0] or None


def _sys_exit(_: str, text: str) -> Fields | None:
    ret = _hexadecimal(text)
    return None if ret is None else {"ret": ret}


def _sentence(event: str, text: str) -> Fields | None:
    match = SENTENCES[event].match(text)
    return {name: value for name, value in match.groupdict().items() if value} if match else None


CALLS = ("sys_enter_", "sys_exit_")
OWN_FORMS: dict[str, Callable[[str, str], Fields | None]] = {
    "sys_enter": _raw_enter,
    "sys_exit": _raw_exit,
    "sys_enter_": _sys_enter,
    "sys_exit_": _sys_exit,
    **dict.fromkeys(SENTENCES, _sentence),
}


def _marker(event: str, text: str) -> Fields:
    """Return symbol and text of a marker; trace-cmd report puts the symbol behind the event."""
    if event not in ("print", "bprint", "bputs"):
        return {"ip": event, "buf": text}
    if raw := re.match(r"^\s*ip=(\S+) (?:fmt=\S+ )?(?:buf|str)=(.*)$", text, re.DOTALL):
        return {"ip": raw[1], "buf": raw[2]}
    symbol = MARKER.match(text)
    return {"ip": symbol["ip"], "buf": symbol["buf"] or ""} if symbol else {"ip": "", "buf": text}


def _system_call(call: re.Match[str]) -> Body:
    name = call["call"]
    if call["ret"] is not None:
        ret = _hexadecimal(call["ret"])
        return Body(f"sys_exit_{name}", {"ret": call["ret"].strip() if ret is None else ret})
    arguments = call["arguments"]
    closed = arguments.endswith(")")
    fields, whole = _arguments(arguments.removesuffix(")"))
    return Body(f"sys_enter_{name}", fields, is_cut=not (closed and whole))


def _arguments(text: str) -> tuple[Fields, bool]:
    """Read ``fd: 3, buff: 55e8, len: 40``; hexadecimal, with or without 0x; types are left out.

    Returns the arguments, and whether all of the text is in them.
    """
    printed: dict[str, list[str]] = {}
    name, quoted = "", False
    for part in text.strip().split(", "):
        if not quoted and (declared := _argument_name(part)):
            name = declared
            printed[name] = [part.partition(": ")[2]]
        elif name:  # a comma in a value
            printed[name].append(part)
        quoted ^= part.count('"') % 2 == 1
    fields: Fields = {}
    for name, values in printed.items():
        value = ", ".join(values).strip()
        number = _hexadecimal(value)
        fields[name] = value if number is None else number
    return fields, bool(fields) or not text.strip()


def _argument_name(part: str) -> str:
    """Return the argument's name in ``fd: 3`` or ``const char * path: 7ffc``; empty if none."""
    declaration, colon, _ = part.partition(": ")
    words = declaration.replace("*", " ").split() if colon else []
    return words[-1] if words and all(word.isidentifier() for word in words) else ""


def _hexadecimal(text: str) -> int | None:
    """Return the number that a text begins with, such as ``0x7ffc8 "/etc/passwd"``."""
    match = HEXADECIMAL.match(text.strip())
    return int(match["digits"], 16) if match else None


def _fields(event: str, text: str) -> Fields:
    """Return the fields of an event's text, and the text itself where the fields do not have it."""
    fields: Fields = {}
    rest = text
    if probe := PROBE.match(text):
        names = ("__probe_ret_ip", "__probe_func") if probe["second"] else ("__probe_ip",)
        fields.update(zip(names, filter(None, (probe["first"], probe["second"])), strict=True))
        rest = text[probe.end() :]
    named, complete = fields_of(rest)
    if DEVICE_EVENT.match(event) and "dev" in named:
        named = {"name" if name == "dev" else name: value for name, value in named.items()}
    fields.update(named)
    if not complete:
        fields[TEXT] = text
    return fields


def fields_of(text: str) -> tuple[dict[str, str], bool]:
    """Return the named values of a text, and whether they are all that it says."""
    names: list[re.Match[str]] = []
    for match in FIELD.finditer(text):
        # `word: ` within a command name is none: comm=tmux: server pid=3
        if match["sign"] == ": " and names and FREE_TEXT.search(names[-1]["name"]):
            continue
        names.append(match)
    fields: dict[str, str] = {}
    complete = not (text[: names[0].start()] if names else text).strip(" \t([")
    ends = [match.start() for match in names[1:]] + [len(text)] * bool(names)
    for match, end in zip(names, ends, strict=True):
        value = _value(text[match.end() : end])
        if match["name"] in fields or (not value and match["sign"].startswith(":")):
            complete = False  # named twice, or a title: `enqueue: pid=12`
        else:
            fields[match["name"]] = value
    return fields, complete


def _value(text: str) -> str:
    """Return a printed value without what separates it from the next field.

    ``R ==>`` is R, and a closing bracket that was opened before the field's name is left out.
    """
    value = text.strip().rstrip(" \t,;|")
    for arrow in ARROWS:
        value = value.removesuffix(arrow).rstrip()
    for opening, closing in ("()", "[]"):
        if value.endswith(closing) and value.count(opening) < value.count(closing):
            value = value[:-1].rstrip()
    return value
