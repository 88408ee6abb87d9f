"""Captures of many machines: their tables in one dataset, collected, asked and compared.

sources        captures named by paths, patterns, lists and URLs
declared       which tables a dataset has, and their columns
about          what every row tells of the capture it is from
tables         how the tables are stored
layout store   where the files of a dataset are, and how they are written
collecting     one capture: analyzed, and its tables written
collect        many captures, by any executor
packs compacting  the rows of many captures in few files, while others read and write
cluster        the same by Dask's scheduler
dataset        the tables, scanned when they are asked
answer         an answer as JSON, as CSV and in a terminal
groups page    hosts or paths side by side, as tables and as a page
"""
