"""``python -m seva_exp.explain RUN``: the user's command; the work is in
``command/explain_run.py``."""

from seva_exp.command.explain_run import main
from seva_exp.core.terminal import command

if __name__ == "__main__":
    command(main)
