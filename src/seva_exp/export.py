"""``python -m seva_exp.export``: the user's command; the work is in ``runs/export.py``."""

import sys

from seva_exp.runs.export import main

if __name__ == "__main__":
    sys.exit(main())
