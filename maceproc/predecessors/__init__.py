"""The files of MACE's and contools' experiments, into tables, and their series drawn again.

- `formats`: what a line of each kind of file means, and what a file's name says.
- `importing`: files into tables, with where each came from: `maceproc import FILES -o DIR`.
- `matching`: which latency belongs to which ping, as the authors did it and as we would.
- `report`: the authors' series, with our statistics beside theirs: `experiment report DIR`.

The formats are those that their programs write (github.com/chris-misa/mace, src/dev_file.c and
tests/*.r; github.com/chris-misa/contools-data, ping/*/genReport.r).
"""
