"""An experiment: its value, the graph of its stages, preflight, and running it. Free of Hydra, W&B
and torch at import."""

from seva_exp.experiment.graph import graph
from seva_exp.experiment.options import Options, SweepOptions
from seva_exp.experiment.plan import plan_run
from seva_exp.experiment.runner import run
from seva_exp.experiment.value import Experiment
