"""Corrected ping RTTs for containers.

A ping in a container reports a larger RTT than on the bare machine. maceproc records raw net
tracepoints beside the ping, follows every packet by its skb address from the container's device to
the outer one and back, and takes the time of those crossings out of the RTT, ping by ping.
"""

__version__ = "0.1.0"
