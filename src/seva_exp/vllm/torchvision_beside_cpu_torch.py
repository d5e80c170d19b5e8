"""Put into vLLM's environment, where PyPI's torchvision stands beside a CPU build of torch. Its
operators cannot be loaded there, and without their declarations ``import torchvision`` stops. They
are declared here, when it is first imported; what vLLM uses of it is plain torch."""

import sys

KEPT: list[object] = []
"""They are gone with the object that declared them."""


class Declaring:
    """An import finder that finds nothing: it declares the operators before others look."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            KEPT.append(library)


sys.meta_path.insert(0, Declaring())
