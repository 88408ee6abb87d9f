"""Make a capture: where to run the ping, how, and the kernel's events beside it.

This runs as root beside a measurement: nothing here imports numpy or pandas.
"""
