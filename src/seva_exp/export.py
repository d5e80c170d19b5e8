"""``python -m seva_exp.export``: the user's command; the work is in ``runs/export.py``."""

from seva_exp.core.terminal import command
from seva_exp.runs.export import main

if __name__ == "__main__":
    command(main)
