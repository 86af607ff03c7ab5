"""YaRN (2309.00071, section 3): rotary for `factor` times the trained length.

Pairs that turn more than `fast` times within the trained length stay as they are, those that turn
less than `slow` times are interpolated by the factor, and between the two the speeds are mixed
("NTK-by-parts", equations 19 to 21). The scores grow with the square of 0.1 ln(factor) + 1, as
attention spreads over more tokens (equation 22).
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from longspan.errors import ConfigError
from longspan.rotation import Longer


@dataclass(frozen=True)
class YaRN(Longer, name="yarn"):
    """Turns fast pairs as rotary does and slow ones `factor` times slower.

    Attributes:
        trained: the trained length, in tokens.
        fast, slow: turns within the trained length above which a pair stays as it is, and below
            which it is interpolated; 32 and 1 in the paper.
    """

    _: KW_ONLY
    trained: int
    fast: float = 32.0
    slow: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = []
        if self.trained < 1:
            problems.append(f"position.trained must be 1 or more, not {self.trained}")
        if not 0 < self.slow < self.fast:
            problems.append(
                f"position.slow must be above 0 and below position.fast={self.fast}, "
                f"not {self.slow}"
            )
        if problems:
            raise ConfigError(problems)

    def speeds(self, head_dim: int, device: torch.device) -> Tensor:
        speeds = super().speeds(head_dim, device)
        # as the authors' code has it, the mixture goes by the pair's number between the two
        low = max(math.floor(self._pair(self.fast, head_dim)), 0)
        high = min(math.ceil(self._pair(self.slow, head_dim)), head_dim - 1)
        number = torch.arange(head_dim // 2, dtype=torch.float64, device=device)
        slowed = ((number - low) / max(high - low, 0.001)).clamp(0, 1)
        return speeds * (1 - slowed) + speeds / self.factor * slowed

    @property
    def growth(self) -> float:
        return 0.1 * math.log(self.factor) + 1

    def _pair(self, turns: float, head_dim: int) -> float:
        """The pair, a number with fractions, that turns `turns` times in the trained length."""
        period = self.trained / (turns * 2 * math.pi)
        return head_dim * math.log(period) / (2 * math.log(self.base))
