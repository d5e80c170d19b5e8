"""Recording without a GPU: by torch.fx, which freezes all that Python decides in a step as a CUDA
graph does, and refuses a step that looks into a tensor."""

from __future__ import annotations

from torch.fx.experimental.proxy_tensor import make_fx

from seva_exp.decoding.budget import Budget
from seva_exp.decoding.cuda_graphs import RecordedSteps
from seva_exp.decoding.engine import Continuous


class Frozen:
    """Records by torch.fx; counts recordings and plays."""

    def __init__(self) -> None:
        self.recorded = self.played = 0

    def __call__(self, work):
        self.recorded += 1
        steps = make_fx(work)()

        def play():
            self.played += 1
            return steps()

        return play


def recorded_with(vlm, record, rows=8, tokens=5000, said=None, sampling=None, **more):
    give_up = (said if said is not None else []).append
    recorded = RecordedSteps(record, give_up)
    return Continuous(vlm, rows, None, sampling, Budget(vlm, tokens), False, recorded, **more)
