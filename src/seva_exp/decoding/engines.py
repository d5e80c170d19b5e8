"""Which engine answers, by the class of the generation spec."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

from seva_exp.core.errors import InputError
from seva_exp.core.interfaces import AnswerEngine, ModelSource, Placement, VisionLanguageModel
from seva_exp.core.machine import Machine, resolve_device
from seva_exp.core.records import CLEAN
from seva_exp.decoding.openai_chat import Chat, check, server_engine
from seva_exp.decoding.spec import Generation, HfGeneration, ServerGeneration, VllmGeneration
from seva_exp.inputs.views import View
from seva_exp.models import AnyModel
from seva_exp.vllm.command import check_model
from seva_exp.vllm.environment import check_device, installed

LoadModel = Callable[[], VisionLanguageModel]


@singledispatch
def engine_of(
    generation: Generation,
    source: ModelSource,
    load_model: LoadModel,
    placement: Placement,
    view: View,
    against: View | None = None,
) -> AnswerEngine:
    """The engine of one view's questions. What is sampled draws from the view's seed. ``against``:
    what a contrast looks at beside them; None: the questions without a picture."""
    raise TypeError(f"no engine answers for {type(generation).__name__}")


@engine_of.register
def _in_process(
    generation: HfGeneration,
    source: ModelSource,
    load_model: LoadModel,
    placement: Placement,
    view: View,
    against: View | None = None,
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
        contrast=generation.contrast,
        view=against,
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
    against: View | None = None,
) -> AnswerEngine:
    assert placement.server
    chat = Chat(generation, source, view.seed, purpose_of(view), generation.served_model)
    return server_engine(placement.server, chat, placement.warn)


@engine_of.register
def _vllm(
    generation: VllmGeneration,
    source: ModelSource,
    load_model: LoadModel,
    placement: Placement,
    view: View,
    against: View | None = None,
) -> AnswerEngine:
    from seva_exp.decoding.vllm_chat import vllm_engine

    assert placement.vllm
    return vllm_engine(generation, source, load_model, placement, view, purpose_of(view))


def check_engine(generation: Generation, machine: Machine, model: AnyModel) -> None:
    """Make sure that questions can be asked, before any work starts. Raises InputError."""
    if isinstance(generation, HfGeneration) and generation.contrast:
        _check_contrast(model)
    if isinstance(generation, ServerGeneration):
        check(machine.server, generation, model)
    if isinstance(generation, VllmGeneration):
        check_model(model)
        check_device(installed(machine), resolve_device(machine).type)


def _check_contrast(model: AnyModel) -> None:
    """Raises InputError where only transformers' own loop can answer for the model."""
    from transformers import AutoConfig

    from seva_exp.decoding.engine import NO_CONTRAST
    from seva_exp.models.attention import unproven_family

    try:
        config = AutoConfig.from_pretrained(model.location(), revision=model.revision)
    except (OSError, ValueError):  # loading the model tells it
        return
    if why := unproven_family(config):
        raise InputError(f"generation.contrast: {why}. {NO_CONTRAST}")


def purpose_of(view: View) -> str:
    """The purpose that seeds a view's draws: its stream is in it, never its name, so that two names
    of one view share answers."""
    return f"sampling/{view.augmentation.stream if view.augmentation else CLEAN}"
