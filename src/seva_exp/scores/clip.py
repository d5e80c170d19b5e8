"""How near an answer is to the picture, as CLIP sees both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import Field

from seva_exp.core.errors import InputError
from seva_exp.core.records import AnswerGroup
from seva_exp.core.spec import Json
from seva_exp.core.texts import sentences
from seva_exp.inputs.images import load_image
from seva_exp.inputs.user_paths import existing_folder
from seva_exp.models.checkpoint import check_files
from seva_exp.models.spec import checkpoint_digest
from seva_exp.scores.base import CandidateScore, Desk, Scorer, Values


class Clip(CandidateScore):
    """max(0, 100 cos(E_image(v), E_text(y))): CLIPScore (arXiv:2104.08718) but for its factor, as
    CSR (arXiv:2405.14622) and CLIP-DPO (arXiv:2408.10433) take it. A text longer than CLIP's
    context is cut there."""

    kind: Literal["clip"] = "clip"
    path: str | None = Field(
        None, min_length=1, description="folder of a CLIP model (transformers' layout)"
    )
    unit: Literal["answer", "sentence"] = "answer"
    """The text that is embedded: the answer, or each sentence of it (CSR), whose mean is taken."""

    def lacking(self, where: str) -> str | None:
        if self.path is not None:
            return None
        return f"{where}.path: must be set ({where}.path=FOLDER): a CLIP model, on this machine."

    def check(self, where: str) -> None:
        assert self.path
        folder = existing_folder(f"{where}.path", self.path)
        if not (folder / "config.json").is_file():
            raise InputError(f"{where}.path={self.path}: this folder has no config.json.")
        check_files(folder, f"{where}.path={self.path}")
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
        if kind != "clip":
            raise InputError(f"{where}.path={self.path}: its model_type is {kind!r}, not 'clip'.")

    def identity(self, sha256: Callable[[Path], str]) -> Json:
        values = super().identity(sha256)
        if self.path and (folder := Path(self.path).expanduser()).is_dir():
            values["path"] = checkpoint_digest(folder, sha256)
        return values

    @contextmanager
    def scorer(self, desk: Desk, groups: Sequence[AnswerGroup]) -> Iterator[Scorer]:
        from transformers import AutoProcessor, CLIPModel

        folder = str(existing_folder("clip.path", self.path or ""))
        processor = AutoProcessor.from_pretrained(folder)
        model = CLIPModel.from_pretrained(folder).to(desk.placement.device).eval()

        def score(some: Sequence[AnswerGroup]) -> Values:
            return [self._values(model, processor, group, desk.root) for group in some]

        yield score

    def _values(
        self, model: Any, processor: Any, group: AnswerGroup, root: Path
    ) -> tuple[float, ...]:
        import torch

        parts = [sentences(text) if self.unit == "sentence" else [text] for text in group.texts]
        inputs = processor(
            text=[text for some in parts for text in some],
            images=load_image(root, group.sample.image),
            padding=True,
            truncation=True,
            max_length=model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(model.device)
        with torch.no_grad():
            out = model(**inputs)
        near = iter((100 * out.text_embeds @ out.image_embeds[0]).clamp(min=0).tolist())
        return tuple(fmean(next(near) for _ in some) for some in parts)
