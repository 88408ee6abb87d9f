"""perf.data, as ``perf record`` writes it, into the same tables as trace.dat.

- `structures`: the format's numbers and structures, in the names of the kernel and of perf.
- `container`: file, pipe or directory: its attributes, features, and bytes of records.
- `walking`: from one record to the next.
- `records`: bytes into records, compressed ones unpacked.
- `samples`: where in a sample its time, CPU, task and the tracepoint's data are.
- `tasks`: which command a thread ran at a time.
- `lost`: which samples were lost, and where.
- `joining`: several files of one recording made to one.
- `reader`: all of it into tables; begin with `maceproc.perfdata.reader.read_opened`.

Sources: tools/perf/Documentation/perf.data-file-format.txt, tools/perf/util/header.c and
session.c, include/uapi/linux/perf_event.h; v6.18.
"""
