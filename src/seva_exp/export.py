"""``python -m seva_exp.export``: the user's command; the work is in ``runs/export.py``, and for the
page of pairs in ``report/pairs_page.py``."""

from seva_exp.core.terminal import command
from seva_exp.report.pairs_page import write_page
from seva_exp.runs.export import main

if __name__ == "__main__":
    command(lambda: main(pages={"page": write_page}))
