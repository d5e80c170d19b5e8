"""``python -m seva_exp.published``: the user's command; the work is in ``compare/published.py``."""

from seva_exp.compare.published import main
from seva_exp.core.terminal import command

if __name__ == "__main__":
    command(main)
