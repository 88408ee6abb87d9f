"""``python -m maceproc`` is the same as ``maceproc``."""

from maceproc.cli import main

main()
