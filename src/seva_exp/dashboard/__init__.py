"""A W&B workspace and report for the runs of a project: ``python -m seva_exp.dashboard``."""
