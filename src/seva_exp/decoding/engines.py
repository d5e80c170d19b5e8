"""Which engine answers, by the class of the generation spec."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

from seva_exp.core.interfaces import AnswerEngine, ModelSource, Placement, VisionLanguageModel
from seva_exp.core.records import CLEAN
from seva_exp.decoding.spec import Generation, HfGeneration, ServerGeneration
from seva_exp.inputs.views import View

LoadModel = Callable[[], VisionLanguageModel]


@singledispatch
def engine_of(
    generation: Generation,
    source: ModelSource,
    load_model: LoadModel,
    placement: Placement,
    view: View,
) -> AnswerEngine:
    """The engine of one view's questions. What is sampled draws from the view's seed."""
    raise TypeError(f"no engine answers for {type(generation).__name__}")


@engine_of.register
def _in_process(
    generation: HfGeneration,
    source: ModelSource,
    load_model: LoadModel,
    placement: Placement,
    view: View,
) -> AnswerEngine:
    from seva_exp.decoding.engine import Engine
    from seva_exp.decoding.sampling import Sampling

    vlm = load_model()
    sampling = None
    if generation.seeded:
        sampling = Sampling(generation.temperature, generation.top_p, view.seed, purpose_of(view))
    return Engine(
        vlm,
        placement.batch_size,
        lambda request, image: view.pixels(vlm, image, request.id),
        sampling=sampling,
        tokens=placement.generation_tokens,
        neighbours=placement.neighbours,
        logprobs=generation.logprobs,
        graphs=placement.cuda_graphs,
        warn=placement.warn,
    )


@engine_of.register
def _server(
    generation: ServerGeneration,
    source: ModelSource,
    load_model: LoadModel,
    placement: Placement,
    view: View,
) -> AnswerEngine:
    from seva_exp.decoding.openai_chat import Chat, server_engine

    assert placement.server
    chat = Chat(generation, source, view.seed, purpose_of(view))
    return server_engine(placement.server, chat, placement.warn)


def purpose_of(view: View) -> str:
    """The purpose that seeds a view's draws: the view's kind is in it, never its name, so that two
    names of one view share answers."""
    kind = view.augmentation.kind if view.augmentation else CLEAN
    return f"sampling/{kind}"
