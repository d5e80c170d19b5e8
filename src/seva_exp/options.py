"""``python -m seva_exp.options [GROUP]``: the user's command; the work is in
``command/options_docs.py``."""

import sys

from seva_exp.command.options_docs import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
