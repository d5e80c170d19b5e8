"""``python -m seva_exp``."""

from seva_exp.command.cli import main

main()
