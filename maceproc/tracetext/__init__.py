"""ftrace and perf text into the same tables as trace.dat.

It reads what people have lying around: the kernel's ``trace`` and ``trace_pipe`` (also with
``latency-format``, ``verbose``, ``record-tgid``, without ``irq-info``, of real-time kernels),
``trace-cmd report`` with any of its options, and ``perf script``; from kernels 3.10 to 6.18.

- `lines`: the start of a line: task, CPU, flags and time, as each program prints them.
- `bodies`: the rest of a line: the event's name, its fields, its text.
- `values`: the printed values of one field as a typed column.
- `reader`: a whole file into tables.

What text cannot say: it has no types, so integers come as int64 (uint64 where they do not fit) and
everything else as categoricals; no clock's name; and often microseconds only
(``info["resolution_ns"]``). Lines at the same time keep the order of the file.
"""

from maceproc.tracetext.reader import read_text

__all__ = ["read_text"]
