"""A bench of kernels that this machine does not run: they are booted in qemu, and record there.

``python -m tests.kernels`` runs it; ``scenarios`` declares the networks, ``machine`` boots a
kernel, ``verdicts`` looks at what was recorded, ``table`` makes the table of docs/networks.md.
"""
