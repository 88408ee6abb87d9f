"""trace.dat, as trace-cmd writes it, into typed tables.

>>> from maceproc.tracedat import read_events
>>> trace = read_events("trace.dat")                      # doctest: +SKIP
>>> trace.events["net_dev_queue"]                         # doctest: +SKIP
"""

from maceproc.tracedat.merge import merge_events
from maceproc.tracedat.reader import read_events

__all__ = ["merge_events", "read_events"]
