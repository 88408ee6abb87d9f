"""The experiment of the MACE paper on any host: what tracing costs, how good the correction is.

C. Misa, S. Kannan, R. Durairajan, *Can we containerize internet measurements?*, ANRW 2019: a ping
in a container and on the bare machine, traced and untraced, under growing traffic.

`plan` says what runs in which order, `traffic` runs flows beside it, and `run` makes the captures.
`read` turns the captures into pings, `results` holds the tables of estimates, and `report` and
`plots` show them. `series` and `tables` declare what there is.
"""

from maceproc.experiment.plan import Plan
from maceproc.experiment.results import Results, read_results
from maceproc.experiment.run import run_experiment

__all__ = ["Plan", "Results", "read_results", "run_experiment"]
