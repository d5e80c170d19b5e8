"""The embedded model, and what can be seen of an engine's loop from outside."""

from __future__ import annotations

import pytest

from seva_exp import Machine
from seva_exp.decoding.kv_cache import KVCache
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load

from .alone import alone
from .scenes import SHARED, SINGLE


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def expected(vlm):
    """Of SINGLE and SHARED, by their order."""
    return [{r.id: alone(vlm, r) for r in some} for some in (SINGLE, SHARED)]


@pytest.fixture
def passes(vlm, monkeypatch):
    """How many tokens each pass of the language model took."""
    seen = []
    decoder = vlm.model.get_decoder()
    real = decoder.forward

    def forward(*args, inputs_embeds, **kwargs):
        seen.append(inputs_embeds.shape[1])
        return real(*args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(decoder, "forward", forward)
    return seen


@pytest.fixture
def extents(monkeypatch):
    """What the slots hold, whenever they are looked at."""
    seen = []
    real = KVCache.fit

    def fit(self, need, budget, rows):
        real(self, need, budget, rows)
        assert self.extent.covers(need)
        for buffers in (self.prefixes, self.own):
            for buffer in buffers.values():
                assert buffer.shape[1] * buffer.shape[3] <= self.extent.tokens
        seen.append(self.extent)

    monkeypatch.setattr(KVCache, "fit", fit)
    return seen
