"""``python -m seva_exp.options [GROUP]``: the user's command; the work is in
``command/options_docs.py``."""

from seva_exp.command.options_docs import main
from seva_exp.core.terminal import command

if __name__ == "__main__":
    command(main)
