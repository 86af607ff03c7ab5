"""Linear maps of few rows, with weights laid out once for many calls.

A product of a weight with one row or some dozens is bound by how fast the weight can be read, and
libraries first bring it into an order of their own: at each call, if it was not done before. On a
CPU that costs up to as much as the product.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 8
"""Rows below which a product in float32 is as fast with the weight as it lies."""

LARGE = 2**19
"""Numbers of a weight from which on oneDNN's order is the faster one in float32 too."""

FEWER = 4
"""Rows below which such a product is as fast with the weight as it lies."""


class Product:
    """x to W x + b for rows (N, I), as `torch.nn.functional.linear`.

    Args:
        weight: (O, I).
        bias: (O,); None for none.
        lays: whether the weight may be copied into another order, by the first call that gains by
            it. Only on a CPU; narrower dtypes need a torch with oneDNN.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        lays: bool = False,
    ) -> None:
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.turned = self.weight.t()
        narrow = weight.dtype in (torch.bfloat16, torch.float16)
        self.packs = packable(weight) and (narrow or weight.numel() >= LARGE)
        # without oneDNN's order nothing is gained for narrow dtypes, with it always
        self.lays = lays and weight.device.type == "cpu" and (self.packs or not narrow)
        self.few = 1 if narrow else FEWER if self.packs else FEW
        self.laid: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(N, I) to (N, O)."""
        laid = self._laid(x)
        if self.packs and laid is not self.turned:
            return torch.ops.mkldnn._linear_pointwise(x, laid, self.bias, "none", [], "")
        return torch.mm(x, laid) if self.bias is None else torch.addmm(self.bias, x, laid)

    def onto(self, base: Tensor, x: Tensor) -> Tensor:
        """`base` (N, O) + W x + b."""
        laid = self._laid(x)
        if self.bias is not None or (self.packs and laid is not self.turned):
            return self(x).add_(base)
        return torch.addmm(base, x, laid)

    def _laid(self, x: Tensor) -> Tensor:
        """(I, O), or in oneDNN's order, as is best for so many rows."""
        if not self.lays or x.shape[0] < self.few:
            return self.turned
        laid = self.laid
        if laid is None and self.packs:
            laid = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        elif laid is None:
            laid = self.turned.contiguous()
        self.laid = laid
        return laid


def packable(weight: Tensor) -> bool:
    """Whether this torch has oneDNN's order for the weight: what its compiler takes, too."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not torch.backends.mkldnn.enabled:
        return False
    supported = {
        torch.float32: None,
        torch.bfloat16: "_is_mkldnn_bf16_supported",
        torch.float16: "_is_mkldnn_fp16_supported",
    }
    if weight.dtype not in supported:
        return False
    asked = supported[weight.dtype]
    names = ("_reorder_linear_weight", "_linear_pointwise", *([asked] if asked else []))
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return asked is None or getattr(torch.ops.mkldnn, asked)()
