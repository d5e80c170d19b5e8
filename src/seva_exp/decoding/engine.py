"""The in-process engine: questions in, answers out, a few at a time as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import AnswerEngine, Reply, Request, VisionLanguageModel
from seva_exp.core.machine import Graphs
from seva_exp.decoding.budget import Budget
from seva_exp.decoding.choosing import Chooser
from seva_exp.decoding.contrast import Contrast
from seva_exp.decoding.contrasting import beside
from seva_exp.decoding.cuda_graphs import RecordedSteps, cuda_graphs, refused
from seva_exp.decoding.hf_generate import Batches
from seva_exp.decoding.prefetch import PicturePrefetcher
from seva_exp.decoding.rows import ImageChange
from seva_exp.decoding.sampling import Sampling
from seva_exp.decoding.scheduler import Scheduler
from seva_exp.inputs.views import View
from seva_exp.models.attention import unproven

NO_CONTRAST = (
    "A contrast needs two rows that get the same tokens, which only our own loop has. Leave "
    "generation/contrast out, or take another model."
)


class Engine:
    """Generation on one loaded model, up to ``batch_size`` rows at once and within ``tokens`` of
    keys and values (None: what the device has room for). ``change`` is a pixel-space view, or None;
    without ``sampling`` it is greedy. ``logprobs``: replies bring the log-probabilities of their
    tokens. ``contrast``: tokens are chosen by it, against ``view`` (None: no picture). ``graphs``:
    whether on a CUDA device decode steps are recorded. ``warn`` is told if the model has to take a
    slower way. Raises StageError where a contrast is wanted of a model that only transformers' own
    loop is right for."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        batch_size: int,
        change: ImageChange | None = None,
        sampling: Sampling | None = None,
        *,
        tokens: int | None = None,
        neighbours: int = 1,
        logprobs: bool = False,
        contrast: Contrast | None = None,
        view: View | None = None,
        graphs: Graphs = "off",
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        why = unproven(vlm)
        self._asks: AnswerEngine
        if why and contrast:
            raise StageError(f"generation.contrast: {why}. {NO_CONTRAST}")
        if why:
            warn(f"generation takes transformers' slower loop, since {why}")
            self._asks = Batches(vlm, batch_size, change, sampling, logprobs)
        else:
            recorded = None
            if graphs != "off" and vlm.device.type == "cuda":
                record = cuda_graphs(vlm.device)
                recorded = RecordedSteps(record, refused if graphs == "on" else warn)
            budget = Budget(vlm, tokens, neighbours)
            how = sampling, budget, logprobs, recorded, contrast, view
            self._asks = Continuous(vlm, batch_size, change, *how)

    def run(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield every request's reply, in any order."""
        return self._asks.run(requests)


class Continuous:
    """Every picture's prefix once, its questions behind it; rows that finish leave and waiting ones
    take their place."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        batch_size: int,
        change: ImageChange | None,
        sampling: Sampling | None,
        budget: Budget,
        logprobs: bool,
        recorded: RecordedSteps | None = None,
        contrast: Contrast | None = None,
        view: View | None = None,
    ) -> None:
        self._vlm = vlm
        self._batch_size = batch_size
        self._change = change
        self._beside = beside(contrast, view) if contrast else None
        scored = contrast.scored(vlm) if contrast else None
        self._chooser = partial(Chooser, vlm, sampling, logprobs, scored)
        self._recorded = recorded
        self._budget = budget

    def run(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield replies when ``batch_size`` have come together, and what there is before an error.
        When memory runs out, what was not finished is done again within half the tokens; the engine
        keeps to them."""
        ahead = PicturePrefetcher(self._vlm, requests, self._change, self._beside)
        loop = Scheduler(
            self._vlm,
            ahead,
            self._batch_size,
            self._budget,
            self._chooser(),
            self._recorded,
        )
        try:
            while not loop.done:
                try:
                    loop.advance()
                except Exception:
                    if loop.replies:
                        yield loop.taken()
                    raise
                if loop.replies and (loop.done or len(loop.replies) >= self._batch_size):
                    yield loop.taken()
        finally:
            ahead.close()
            if self._recorded:
                self._recorded.forget()
