"""What our models use of transformers that is not documented, each use with its reason. (The other
such use is a config's ``_attn_implementation``, in attention.py.) tests/models/test_processor.py
tells when a use is no longer needed."""

from __future__ import annotations

from typing import Any


def takes_videos(config: Any) -> Any:
    """The processor class of a model's config, if one of its parts is for videos, else None. Such
    a class has to be put together by hand: there is no video processor without torchvision, and
    none on the PIL backend, so that AutoProcessor fails."""
    from transformers import PROCESSOR_MAPPING

    kind = PROCESSOR_MAPPING.get(type(config), None)
    return kind if kind is not None and "video_processor" in kind.get_attributes() else None


def without_videos(kind: Any, where: str, **options: Any) -> Any:
    """The processor ``kind`` of a checkpoint, on the PIL backend, as AutoProcessor would make it.
    No video is ever shown, so an empty video processor takes the place of the real one."""
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.video_processing_utils import BaseVideoProcessor  # hidden at the top

    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(where, backend="pil", **options),
        "tokenizer": AutoTokenizer.from_pretrained(where, **options),
        "video_processor": BaseVideoProcessor(num_frames=None, fps=None),
    }
    settings, _ = kind.get_processor_dict(where, **options)
    arguments = [parts[name] for name in kind.get_attributes()]
    return _any_video_processor(kind).from_args_and_dict(arguments, settings)


def _any_video_processor(kind: Any) -> Any:
    """A subclass of the same name that does not look at the type of its video processor:
    transformers compares it with a class that it hides when torchvision is not there."""

    def check(self: Any, name: str, value: Any) -> None:
        if name != "video_processor":
            kind.check_argument_for_proper_class(self, name, value)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
