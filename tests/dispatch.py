"""Watches every tensor that torch makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Made(TorchDispatchMode):
    """Within it, every operation notes dtypes and shapes of what it gives, backward passes too."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()
        self.shapes: set[tuple[int, ...]] = set()
        self.largest: dict[str, int] = {}
        """Numbers in the largest tensor made, by type of device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.dtypes.add(leaf.dtype)
                self.shapes.add(tuple(leaf.shape))
                where = leaf.device.type
                self.largest[where] = max(leaf.numel(), self.largest.get(where, 0))
        return result
