"""``python -m seva_exp``."""

from seva_exp.cli import main

main()
