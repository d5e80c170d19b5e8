"""A small synthetic world: drawn scenes with exact ground truth, questions and descriptions.

Lengths are in canvas units: the canvas is always 72 x 72 units, whatever its size in pixels.
"""

from seva_exp.world.draw import draw
from seva_exp.world.language import describe, mentions
from seva_exp.world.questions import QA, QUESTIONS, existence
from seva_exp.world.scene import BIASED, UNBIASED, Scene, Thing, WorldPrior, sample_scene
