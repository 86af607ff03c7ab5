"""torch's scaled_dot_product_attention: fused where the device has it, mask and bias in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from longspan.slots import Bias, Kernel, Pairs


@dataclass(frozen=True)
class SDPA(Kernel, name="sdpa"):
    """Fused attention. A bias is made whole first, since SDPA takes it as one tensor."""

    weighs: ClassVar[bool] = False
    sums: ClassVar[bool] = False

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pairs: Pairs,
        bias: Bias | None,
        scale: float,
        dropout: float = 0.0,
    ) -> Tensor:
        mask = pairs.additive(q.dtype)[:, None]
        if bias is not None:
            mask = mask + bias.dense(q.shape[1]).to(q.dtype)
        return scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale)
