"""The weights of a batch's tokens: what an answer looks like to a model, and the weights that
follow; the work of the stage ``weights``, which keeps those that the reference alone decides.

Shape legend: N preferences, M rejected answers, R rows (collate.py), S tokens of all rows' answers,
T of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.spec import Json
from seva_exp.training.collate import OWNERS, AnswerWeights, Preference, whose
from seva_exp.training.forward import Forward, answers_of, by_row, labels_of, passed
from seva_exp.training.head import Head
from seva_exp.training.preferences import PairSet
from seva_exp.training.reference import as_line, of_line, references_of, score_pairs
from seva_exp.training.spec import Fast
from seva_exp.training.weight import Said, TokenWeights

FILE = "weights.jsonl"
ENDS = re.compile(r"[.!?\u3002\uff01\uff1f][\"')\]]*$|\n\s*$")
"""The end of a sentence at the end of a text."""


def said_of(
    head: Head, outputs: dict[str, Tensor], inputs: Any, owners: dict[str, Tensor], logits: bool
) -> list[Said]:
    """The N + M answers of a batch, whose forward pass gave ``outputs`` (with ``hidden``, if
    ``logits`` are wanted)."""
    mask = answers_of(inputs)
    lengths = mask.sum(dim=1).tolist()
    rows = whose(owners)
    count = len(rows) - len(owners["view_owner"]) - len(owners["crossed"])
    chosen = count - len(owners["rejected_owner"])
    said = outputs["log_probs"].detach()[mask].float()
    found = [Said(i < chosen, one) for i, one in enumerate(said.split(lengths)[:count])]
    if not logits:
        return found
    hidden, labels = outputs["hidden"].detach(), labels_of(inputs)
    head.check(hidden, labels, said)
    own = head.of(hidden, labels).split(lengths)
    worse: list[list[Tensor]] = [[] for _ in found]
    mistaken: list[list[Tensor]] = [[] for _ in found]
    if rest := rows[count:]:
        places = hidden.split(lengths)
        clean = torch.cat([places[number] for number in rest])
        guessed = head.of(clean, head.likeliest(hidden[sum(lengths[:count]) :]))
        for row, number, guess in zip(
            own[count:], rest, guessed.split(lengths[count:]), strict=True
        ):
            worse[number].append(row)
            mistaken[number].append(guess)
    return [
        Said(one.chosen, one.log_probs, None, logit, tuple(w), tuple(m))
        for one, logit, w, m in zip(found, own[:count], worse, mistaken, strict=True)
    ]


def token_weights(weights: TokenWeights, said: Sequence[Said], owners: dict[str, Tensor]) -> Tensor:
    """[S]: those of all rows' answers, row by row."""
    each = [weights(one) for one in said]
    return torch.cat([each[number] for number in whose(owners)])


def sentences_of(vlm: VisionLanguageModel, ids: Sequence[int]) -> tuple[int, ...]:
    """The number of the sentence that each token is in, from 0. A sentence ends with a full stop,
    an exclamation or a question mark before a blank, or with a line; what follows the last one
    without a word of its own (the end of the answer) belongs to it."""
    tokenizer = vlm.processor.tokenizer
    texts = [tokenizer.decode(ids[i : i + 2]) for i in range(len(ids))]
    alone = [tokenizer.decode(ids[i : i + 1]) for i in range(len(ids))]
    written = [both[len(one) :] for one, both in zip(alone, texts, strict=True)]
    found, number, text = [], 0, ""
    last = max((i for i, one in enumerate(ids) if vlm.decode([one])), default=0)
    for i in range(len(ids)):
        found.append(number)
        text += alone[0] if i == 0 else written[i - 1]
        if i < last and ENDS.search(text) and (text[-1:].isspace() or written[i][:1].isspace()):
            number, text = number + 1, ""
    return tuple(found)


def score_weights(
    vlm: VisionLanguageModel,
    pair_set: PairSet,
    weights: TokenWeights,
    fast: Fast,
    placement: Placement,
    start: Path | None = None,
) -> Json:
    """Write ``weights.jsonl``, as ``score_pairs`` does: a weight for each token of the pairs'
    answers, and log pi_ref summed with them."""
    head = Head(vlm.model)

    def measure(forward: Forward, model: Any, rows: Any, batch: Sequence[Preference]) -> list[Json]:
        inputs, found = passed(forward, model, rows, placement, vlm.model.dtype, weights.logits)
        owners = {name: rows[name] for name in OWNERS}
        said = said_of(head, found, inputs, owners, weights.logits)
        answers = [p.chosen for p in batch] + [ids for p in batch for ids in p.rejected]
        if weights.sentences:
            said = [_numbered(vlm, one, ids) for one, ids in zip(said, answers, strict=True)]
        table = by_row(token_weights(weights, said, owners), inputs)
        sums = (found["log_probs"].float() * table).sum(dim=1)
        each = iter([weights(one).tolist() for one in said])
        chosen = [next(each) for _ in batch]
        rejected = [[next(each) for _ in p.rejected] for p in batch]
        lines = zip(batch, chosen, rejected, references_of(batch, sums), strict=True)
        return [
            {"sample_id": p.id, "chosen": c, "rejected": r, "reference": as_line(reference)}
            for p, c, r, reference in lines
        ]

    return score_pairs(vlm, pair_set, fast, placement, measure, FILE, start)


def _numbered(vlm: VisionLanguageModel, said: Said, ids: Sequence[int]) -> Said:
    """With the numbers of its sentences."""
    numbers = torch.tensor(sentences_of(vlm, ids), device=said.log_probs.device)
    return Said(said.chosen, said.log_probs, numbers, said.logits, said.worse, said.mistaken)


def read_weights(artifact: Path) -> dict[str, AnswerWeights]:
    """The pairs' weights, by sample; none of a pair that was left out."""
    rows = map(json.loads, (artifact / FILE).read_text(encoding="utf-8").splitlines())
    return {
        row["sample_id"]: AnswerWeights(
            tuple(row["chosen"]), tuple(map(tuple, row["rejected"])), of_line(row["reference"])
        )
        for row in rows
    }
