"""What a fake GPU has to know of an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

READS = {
    aten._local_scalar_dense.default: "item",
    aten.is_nonzero.default: "bool",
    aten.equal.default: "equal",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
}
"""The host waits for a value, or for the size of what comes out."""
INDEXES = ("index", "index_put", "index_put_", "_unsafe_index", "_unsafe_index_put")
MATRIX = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product", "_addmm")
"""What the names of matrix work begin with: its operands are of one number format."""
NO_KERNEL = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "set_")


@dataclass(frozen=True)
class Operator:
    """``returns``: whether it hands back what it was given and changed in place; ``view``: whether
    only shape and place are new; ``flop``: operations by its arguments and result."""

    name: str
    communicates: bool
    view: bool
    returns: bool
    matrix: bool
    read: str | None
    flop: Callable[..., int] | None

    @property
    def kernel(self) -> bool:
        """Whether a GPU starts a kernel for it."""
        return not self.view and self.name not in NO_KERNEL


@cache
def operator(func: Any) -> Operator:
    """The facts of an overload."""
    schema = func._schema
    name = schema.name.split("::")[1]
    aliases = [one.alias_info for one in schema.returns if one.alias_info is not None]
    return Operator(
        name=name,
        communicates=func.namespace in ("c10d", "_c10d_functional"),
        view=any(not alias.is_write for alias in aliases) or name == "_unsafe_view",
        returns=any(alias.is_write for alias in aliases),
        matrix=name.startswith(MATRIX) and "backward" not in name,
        read=READS.get(func),
        flop=flop_registry.get(func.overloadpacket),
    )
