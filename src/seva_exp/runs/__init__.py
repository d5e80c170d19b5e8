"""A run's folder: what happens is told and written down, and read again."""

from seva_exp.runs.table import frame as frame
