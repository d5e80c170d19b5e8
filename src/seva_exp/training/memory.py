"""Bytes that training and scoring hold at most, by the sizes of the model and of a batch. No torch.

Counted are the tensors that autograd keeps of each operation of a decoder layer with LoRA, as
transformers and PEFT compute them (RMSNorm in float32; q, k, v and the two forms of the attention's
output; gate, its activation, up and their product), the adapter with gradients and AdamW's moments
in float32, and what the step that needs most allocates for itself.
``tests/experiment/test_memory.py`` holds the sums to what a CPU and a counted GPU really take.

Shape legend: T tokens of a batch, S of them scored, W width, M width of an MLP, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from seva_exp.core.device_memory import Numbers
from seva_exp.models.footprint import Footprint

TILE = 4096, 32768
"""Tokens by vocabulary of the LM head that are computed at once (TRL's fused head)."""
FORWARD_COPIES, BACKWARD_COPIES = 3.25, 7.25
"""Float32 tensors beside a tile that are alive at once where no Triton kernel folds it."""
SCORING_PIECES, TRAINING_PIECES, LAYER_PIECES = 0.6, 0.8, 3.5
"""Main memory beside tensors, since what is freed is kept in pieces (runtime.keep_memory), of which
some fit nothing that comes later: shares of a forward pass (half of it where the LM head's tiles
are its peak), and of all layers' tensors in training; with checkpointing, so many layers' passes.
Measured: python perf/memory.py --measure."""
TRAINED = 4
"""Bytes of what is trained, of its gradients, and of each of AdamW's two moments."""


@dataclass(frozen=True)
class Batch:
    """One forward pass. ``scored``: places of the answers' tokens; ``head``: places that the LM
    head computes where it is not compacted (no Triton); ``seen``: places that a mask of all by all
    holds; ``pictures`` that go through the tower at once."""

    tokens: int
    scored: int
    head: int
    seen: int
    pictures: int
    packed: bool


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt without its picture, and of an answer."""

    question: int
    answer: int


def packed(
    model: Footprint,
    many: int,
    lengths: Lengths,
    rejected: int = 1,
    views: int = 0,
    crossed: int = 0,
) -> Batch:
    """So many preferences in one sequence (training/packed.py); ``crossed``: rejected answers with
    the views' pictures."""
    prompt, answer = model.image_tokens + lengths.question, lengths.answer
    rows = 1 + rejected + views + crossed
    tokens = (1 + views) * prompt + rows * (answer - 1)
    scored = rows * answer * many
    return Batch(many * tokens, scored, scored, 0, 1, packed=True)


def plain(model: Footprint, many: int, lengths: Lengths, rows: int = 2) -> Batch:
    """So many examples of ``rows`` padded rows each, every one with its picture."""
    length = model.image_tokens + lengths.question + lengths.answer
    count = many * rows
    head = count * (length - 1)
    return Batch(
        count * length, count * lengths.answer, head, count * length**2, count, packed=False
    )


@dataclass(frozen=True)
class Gradients:
    """What is trained: parameters of the adapter by its rank, a whole projector's. ``copies``:
    further copies of all gradients (DDP's buckets); ``shared``: by how many processes gradients
    and moments are shared out (ZeRO-2)."""

    parameters: int
    rank: int
    projector: int = 0
    copies: int = 0
    shared: int = 1

    @property
    def bytes(self) -> int:
        return TRAINED * (self.parameters + self.projector)


def scoring(model: Footprint, numbers: Numbers, batch: Batch, rank: int = 0) -> float:
    """A forward pass without gradients, beside weights and adapter."""
    adapted = 4 if rank else 3
    pieces = 0.0 if numbers.gpu else SCORING_PIECES
    layer = batch.tokens * (4 * model.width + adapted * model.middle) * numbers.item
    hidden = _hidden(model, numbers, batch)
    folded = _tile(model, numbers, batch, FORWARD_COPIES) + hidden
    passes = max((1 + pieces) * (layer + hidden), (1 + pieces / 2) * folded)
    return max(passes, tower(model, numbers, batch.pictures))


def training(
    model: Footprint,
    numbers: Numbers,
    batch: Batch,
    trained: Gradients,
    *,
    checkpointing: bool,
    accumulates: bool,
) -> dict[str, float]:
    """The largest moment of the steps after the first, when AdamW's moments are there, by kind,
    beside the weights. ``accumulates``: a step has several batches, so that gradients are there
    when its last one begins."""
    gradients = trained.bytes * (1 / trained.shared + trained.copies)
    fixed = {
        "adapter": trained.bytes + trained.projector * (TRAINED - numbers.item),
        "AdamW": 2 * trained.bytes / trained.shared,
    }
    layer = _layer(model, numbers, batch, trained)
    again = _again(model, numbers, batch)
    folded = _tile(model, numbers, batch, BACKWARD_COPIES)
    hidden = 2 * _hidden(model, numbers, batch)
    if checkpointing:
        kept = batch.tokens * model.width * numbers.item * model.layers + hidden
        begins = kept + max(folded, layer + again)
    else:
        kept = (model.layers - 1) * layer + _last(model, numbers, batch, trained) + hidden
        begins = kept + max(folded, again)
    pieces = TRAINING_PIECES * model.layers * layer
    if checkpointing:
        pieces = LAYER_PIECES * (layer + again)
    pieces *= not numbers.gpu
    already = gradients if accumulates or trained.copies else 0.0
    moments = [
        {"activations": begins + pieces, "gradients": already},
        {"activations": layer + again + hidden + pieces, "gradients": gradients},
    ]
    return fixed | max(moments, key=lambda moment: sum(moment.values()))


def tower(model: Footprint, numbers: Numbers, pictures: int) -> float:
    """Pictures that go through the vision tower at once, without gradients."""
    wide = 6 * model.tower_width + 2 * model.tower_middle
    return pictures * model.patches * wide * numbers.item


def _layer(model: Footprint, numbers: Numbers, batch: Batch, trained: Gradients) -> float:
    """What autograd keeps of a decoder layer."""
    item = numbers.item
    query, key = model.heads * model.head_width, model.key_heads * model.head_width
    a_token = model.norms * (4 + item) * model.width
    a_token += item * (3 * query + 2 * key) + 4 * model.heads
    a_token += 4 * (query + key) * model.head_norms
    if numbers.gpu and query > key and batch.packed:
        a_token += 2 * item * query  # copied for each head: models/branches.py
    a_token += 4 * item * model.middle
    a_token += len(model.linears) * item * trained.rank
    return batch.tokens * a_token + batch.seen * item + _casts(model, numbers, trained)


def _last(model: Footprint, numbers: Numbers, batch: Batch, trained: Gradients) -> float:
    """Of the last one: on a packed sequence its MLP runs where answers are predicted."""
    if not batch.packed:
        return _layer(model, numbers, batch, trained)
    spared = 4 * numbers.item * model.middle * (batch.tokens - batch.scored)
    return _layer(model, numbers, batch, trained) - spared


def _casts(model: Footprint, numbers: Numbers, trained: Gradients) -> float:
    """A layer's adapter in the number format of the products, which autograd keeps."""
    return numbers.item * trained.parameters / model.layers if numbers.half else 0


def _again(model: Footprint, numbers: Numbers, batch: Batch) -> float:
    """Gradients of activations within a layer's backward pass."""
    return batch.tokens * numbers.item * (4 * model.middle + 3 * model.width)


def _hidden(model: Footprint, numbers: Numbers, batch: Batch) -> float:
    """Embeddings and the last norm's."""
    return batch.tokens * model.width * (4 + 2 * numbers.item)


def _tile(model: Footprint, numbers: Numbers, batch: Batch, copies: float) -> float:
    """A tile of the fused LM head. On a GPU a Triton kernel folds it in place; elsewhere all of
    ``head`` is computed, in float32, and gradients of weights are summed in float32."""
    tokens, vocabulary = (
        min(a, b) for a, b in zip(TILE, (batch.head, model.vocabulary), strict=True)
    )
    if numbers.gpu and numbers.triton:
        return min(batch.scored, tokens) * vocabulary * numbers.item
    return tokens * vocabulary * (numbers.item + 4 * copies)
