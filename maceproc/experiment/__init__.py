"""The paper's experiment on anybody's hosts: what tracing costs, and how good the correction is.

C. Misa, S. Kannan, R. Durairajan, *Can we containerize internet measurements?*, ANRW 2019: a ping
in a container and on the bare machine, traced and untraced, under growing traffic.

`plan` says what runs in which order, `traffic` is what runs beside it, `run` makes the captures,
`results` turns them into tables, `report` and `plots` show those.
"""

from maceproc.experiment.plan import Plan
from maceproc.experiment.results import Results, read_results
from maceproc.experiment.run import run_experiment

__all__ = ["Plan", "Results", "read_results", "run_experiment"]
