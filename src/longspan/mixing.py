"""A mixer is what lets the tokens of a sequence meet in a layer: attention, or something else.

Softmax attention is explained by the four words of `slots.py`. Linear attention, recurrent networks
and convolutions are not: they own a state of fixed size. To a block they are all the same:

    y, carried = mixing.mix(x, carried, places, pairs)

A `Mixer` is the choice (a frozen dataclass with a name), a `Mixing` what it builds for one layer (a
module with parameters), as `Position` and `Order` are, and `Memory` and `Keeper`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from longspan.errors import ConfigError, Conflict, StateError
from longspan.registry import Component
from longspan.slots import Kernel, Memory, Pairs, Pattern, Places, Position, Wrapping
from longspan.state import Carried, State

UNLIMITED = 1024
"""What is taken for the length of an unlimited past where a cost is counted."""


@dataclass(frozen=True)
class Nothing(Carried, kind="nothing"):
    """What a mixer carries that looks both ways: a sequence has no past."""

    def reset(self, rows: Tensor) -> Nothing:
        return self


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a mixer is built from.

    Attributes:
        width: C.
        heads, kv_heads, head_dim: H, G and D, for a mixer with heads.
        position, pattern, memory, kernel: the four slots, for a mixer that takes them. Of the
            pattern every mixer takes whether it is causal.
        bias: maps of queries, keys, values and answers have biases, for a mixer that takes them.
        exact: refuse a memory that does not cover the pattern.
        dropout: of attention weights.
        place_dropout: of what a position makes of places alone (`Order.dropout`).
        norm: normalises what the mixer reads (pre-norm); None reads it as it is.
    """

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    position: Position
    pattern: Pattern
    memory: Memory
    kernel: Kernel
    bias: bool = False
    exact: bool = True
    dropout: float = 0.0
    place_dropout: float = 0.0
    norm: nn.Module | None = field(default=None, compare=False)


class Mixing(nn.Module):
    """A mixer built for one layer.

    Attributes:
        dim: C, width of its input and output.
        norm: normalises what it reads; None reads it as it is.
        o: the map that ends it; a stack shrinks its weight with depth.
    """

    o: nn.Linear

    def __init__(self, dim: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.norm = norm

    @abstractmethod
    def begin(self, batch: int, like: Tensor) -> Carried:
        """What is carried before any token; `like` gives dtype and device."""

    @abstractmethod
    def fits(self, carried: Carried) -> bool:
        """Whether this layer can have written `carried`."""

    @property
    def sharing(self) -> Hashable:
        """Layers of a stack with the same value share one `Pairs`; None shares none."""
        return None

    def pairs(self, carried: Carried, places: Places) -> Pairs | None:
        """Which query meets which key; None for a mixer that has no pairs."""
        return None

    @abstractmethod
    def mix(
        self, x: Tensor, carried: Carried, places: Places, pairs: Pairs | None
    ) -> tuple[Tensor, Carried]:
        """Lets the tokens of a call meet.

        Args:
            x: (B, T, C), before the norm.
            carried: what this layer carried.
            places: where the tokens stand. What is no real token must leave no trace, and what
                belongs to another document must not be seen.
            pairs: what `pairs` gave.

        Returns:
            (B, T, C), and what the layer carries now.
        """

    @property
    def keys(self) -> int:
        """Most keys that a query meets, of an unlimited past `UNLIMITED`; 0 without pairs."""
        return 0

    def products(self) -> tuple[float, float]:
        """Multiplications a token, beside those of its matrices: of projections, of the meeting.

        In evaluation, segment by segment (token by token where the pattern has none).
        """
        return 0.0, 0.0

    @property
    def reads(self) -> int | None:
        """How many tokens before each it must know beside the token itself; None for neither."""
        return None

    def after(self, length: int, like: Tensor) -> Carried:
        """What is carried after `length` tokens of one row, in shapes alone."""
        return self.begin(1, like)

    def begun(self, layer: int) -> None:
        """Called when the weights of layer `layer` of a stack are drawn: what they start from."""

    @property
    def common(self) -> Hashable:
        """Layers of a stack with the same value may `share` parameters; None has none to share."""
        return None

    def share(self, first: Mixing) -> None:
        """Called on later layers of a stack: use the first layer's parameters where asked to."""

    def read(self, x: Tensor) -> Tensor:
        """`x` as the mixer reads it: normalised in a pre-norm block."""
        return x if self.norm is None else self.norm(x)


@dataclass(frozen=True)
class Mixer(Component, kind="mixer", folder="longspan.mixers"):
    """How do tokens meet?

    Traits:
        slots: it takes a position in its scores, a pattern, a memory and a kernel.
        causal: it has a form in which nothing of the future enters.
        bidirectional: it has a form that looks both ways.
        drops: it has attention weights, some of which `Layer.dropout` drops.
        biased: its maps may have biases.
    """

    slots: ClassVar[bool] = False
    causal: ClassVar[bool] = True
    bidirectional: ClassVar[bool] = False
    drops: ClassVar[bool] = False
    biased: ClassVar[bool] = False

    def conflicts(self, layer: Layer) -> list[Conflict]:
        """What its own settings say against the slots of `layer`."""
        return []

    @abstractmethod
    def build(self, layer: Layer) -> Mixing:
        """The parameters and the arithmetic for one layer."""


def head_sizes(dim: int, heads: int, head_dim: int | None, kv_heads: int | None) -> tuple[int, int]:
    """D and G of attention of width `dim`: C / H and H where they are None.

    Raises:
        ConfigError: sizes that do not fit.
    """
    sizes = {"dim": dim, "heads": heads, "head_dim": head_dim, "kv_heads": kv_heads}
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ConfigError(f"{name} must be 1 or more, not {size}")
    if head_dim is None:
        if dim % heads:
            raise ConfigError(
                f"dim={dim} does not divide into heads={heads}; give head_dim as well"
            )
        head_dim = dim // heads
    if kv_heads is not None and heads % kv_heads:
        raise ConfigError(f"heads={heads} does not divide into groups of kv_heads={kv_heads}")
    return head_dim, heads if kv_heads is None else kv_heads


def check_state(state: State, layers: Sequence[Mixing | Wrapping], batch: int) -> None:
    """Refuses a state that `layers` cannot have given for `batch` rows.

    Raises:
        StateError: it has other rows, layers, heads or widths.
    """
    if state.batch != batch:
        raise StateError(
            f"the state has {state.batch} rows, the input {batch}; use state.select(rows)"
        )
    if len(state.layers) != len(layers):
        raise StateError(
            f"the state has {len(state.layers)} layers, the model {len(layers)}: "
            "it is another model's"
        )
    for index, (carried, layer) in enumerate(zip(state.layers, layers, strict=True)):
        if not layer.fits(carried):
            shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in carried.tensors().items())
            raise StateError(
                f"layer {index} of the state is of kind '{carried.kind}' ({shapes}), which does "
                f"not fit this layer of width {layer.dim}: it is another model's; start with "
                "state=None"
            )
