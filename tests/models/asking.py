"""How a model card asks a model: what ours must come to."""

from __future__ import annotations

import torch
from PIL import Image, ImageOps

from seva_exp import Machine
from seva_exp.models.vlm import Vlm

MACHINE = Machine(device="cpu", dtype="float32")
SIZES = [(60, 30), (32, 32), (27, 75), (150, 90)]
SHAPES = [*SIZES, (9, 7), (320, 50)]
PROMPTS = ["Describe the image.", "What is\nin it?  ", "日本 ünï <b>?", ""]
BROKEN = "\n\nAfter empty lines.\n"


def shown(vlm: Vlm, picture: Image.Image) -> Image.Image:
    """The picture as the original code gives it to the processor."""
    if not vlm.spec.pad_to_square:
        return picture
    mean = tuple(int(255 * value) for value in vlm.processor.image_processor.image_mean)
    return ImageOps.pad(picture, (max(picture.size),) * 2, color=mean)


def published(vlm: Vlm, picture: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
    """Inputs made the way a model card shows it: by the processor alone."""
    if vlm.processor.chat_template is None:
        text = f"<image>{prompt}"
        out = dict(vlm.processor(images=shown(vlm, picture), text=text, return_tensors="pt"))
        assert (out.pop("labels") == -100).all()
        return out
    image = {"type": "image", "image": shown(vlm, picture)}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": prompt}]}]
    if vlm.spec.system_prompt:
        system = {"type": "text", "text": vlm.spec.system_prompt}
        messages.insert(0, {"role": "system", "content": [system]})
    return vlm.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
