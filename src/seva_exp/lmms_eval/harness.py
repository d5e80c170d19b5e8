"""Runs in lmms-eval's environment, where seva_exp is not: ``python -I harness.py JOB OUT``.

The harness gives data, prompts and scores. The model answers with transformers' own ``generate``,
one question at a time, asked in its processor's chat template: any model that transformers knows,
and no code of ours between it and the harness.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from PIL import Image
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

KEPT = ("results", "n-samples", "versions", "higher_is_better")
"""What is read of the harness's results."""
LONGEST = 1024
"""Tokens of an answer, where a task gives no number."""


class Checkpoint(lmms):
    """A checkpoint of transformers. ``job``: what ``python -m seva_exp.lmms_eval`` wrote."""

    is_simple = True

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()
        self.job = job
        self.processor = AutoProcessor.from_pretrained(job["processor"])
        model = AutoModelForImageTextToText.from_pretrained(
            job["weights"], revision=job["revision"], dtype=getattr(torch, job["dtype"])
        )
        self.model = model.eval().to(job["device"])
        old, tokenizer = model.generation_config, self.processor.tokenizer
        ends = old.eos_token_id if isinstance(old.eos_token_id, list) else [old.eos_token_id]
        ends = sorted({*ends, tokenizer.eos_token_id} - {None})
        pad = old.pad_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        # A checkpoint's own sampling defaults must not leak into a task's settings.
        model.generation_config = GenerationConfig(
            bos_token_id=old.bos_token_id,
            eos_token_id=ends,
            pad_token_id=ends[0] if pad is None else pad,
        )

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """An answer a request."""
        return [self._answer(*request.args) for request in tqdm(requests, desc="answers")]

    def _answer(
        self,
        prompt: str,
        settings: dict[str, Any],
        pictures_of: Any,
        doc: int,
        task: str,
        split: str,
    ) -> str:
        found = pictures_of(self.task_dict[task][split][doc]) or []
        inputs = self._inputs(prompt, [self._shown(picture) for picture in found])
        with torch.inference_mode():
            out = self.model.generate(**inputs, **_decoding(settings))
        ids = out[0, inputs["input_ids"].shape[1] :]
        text = self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return _until(text, settings.get("until") or ())

    def _inputs(self, prompt: str, pictures: list[Image.Image]) -> Any:
        system = self.job["system_prompt"]
        messages = [{"role": "system", "content": [_text(system)]}] if system else []
        shown = [{"type": "image"} for _ in pictures]
        messages.append({"role": "user", "content": [*shown, _text(prompt)]})
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        bos = self.processor.tokenizer.bos_token
        inputs = self.processor(
            text=[text],
            images=pictures or None,
            return_tensors="pt",
            add_special_tokens=not (bos and text.startswith(bos)),  # many templates write it
        )
        return inputs.to(self.model.device, self.model.dtype)

    def _shown(self, picture: Any) -> Image.Image:
        """The picture as runs show it to the processor: on a square where the model wants one."""
        if not isinstance(picture, Image.Image):
            raise TypeError(f"a picture is needed, {type(picture).__name__} is given (a video?)")
        image, side = picture.convert("RGB"), max(picture.size)
        if not self.job["pad_to_square"] or image.width == image.height:
            return image
        mean = self.processor.image_processor.image_mean
        square = Image.new("RGB", (side, side), tuple(int(255 * value) for value in mean))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("tasks that compare likelihoods are not asked, only generation")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not asked")


def _text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def _decoding(settings: dict[str, Any]) -> dict[str, Any]:
    """A task's settings as transformers takes them: greedy, unless a temperature is given."""
    temperature = settings.get("temperature") or 0
    sampled = {"do_sample": True, "temperature": temperature, "top_p": settings.get("top_p")}
    return {
        "max_new_tokens": settings.get("max_new_tokens") or LONGEST,
        "num_beams": settings.get("num_beams") or 1,
        **(sampled if temperature > 0 else {"do_sample": False}),
    }


def _until(text: str, ends: str | Sequence[str]) -> str:
    """The text before the first of the strings at which a task wants it to end."""
    for end in [ends] if isinstance(ends, str) else ends:
        text = text.split(end)[0] if end else text
    return text


def main() -> None:
    job, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    tasks = TaskManager(include_path=job["include_path"])
    found = simple_evaluate(
        model=Checkpoint(job),
        tasks=job["tasks"],
        task_manager=tasks,
        limit=job["limit"],
        log_samples=False,
    )
    kept = {name: found[name] for name in KEPT if name in found}
    out.write_text(json.dumps(kept, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
