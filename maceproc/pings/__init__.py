"""What pings print, into the PINGS table.

A text goes through four steps: `lines` says what each line means, `assembly` gathers the lines of
one run, `numbering` decides which icmp_seq was the first and which numbers can be true, and `table`
makes rows. What a program prints is declared as data in a module of its own (`unix`, `fping`, ...).
A line that is not understood is counted and kept; a conclusion carries its reason in words.
"""

from maceproc.pings.assembly import parse_ping, parse_runs
from maceproc.pings.flavours import Flavour, Stamp
from maceproc.pings.output import ICMP_HEADER_BYTES, PingOutput
from maceproc.pings.table import pings_table, rows_of_run

__all__ = [
    "ICMP_HEADER_BYTES",
    "Flavour",
    "PingOutput",
    "Stamp",
    "parse_ping",
    "parse_runs",
    "pings_table",
    "rows_of_run",
]
