"""Training a model: on its preference pairs, and on given responses."""

from seva_exp.training.spec import DpoTraining, SftTraining
