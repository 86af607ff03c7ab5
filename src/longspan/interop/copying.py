"""Copying a checkpoint's tensors into a model by name, with what does not fit said at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from longspan.errors import CheckpointError

MOST = 6
"""Problems that are told."""


class Copying:
    """Copies by name and remembers what did not fit.

    Args:
        tensors: what there is.
        layers: how names begin of which none may be left over.
        spare: how names end that may be left over all the same.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], layers: tuple[str, ...], spare: tuple[str, ...] = ()
    ) -> None:
        self.tensors, self.spare = tensors, spare
        self.unused = {name for name in tensors if name.startswith(layers)}
        self.problems: list[str] = []

    @torch.no_grad()
    def copy(self, name: str, target: Tensor, rows: slice | Tensor = slice(None)) -> None:
        """The tensor `name`, or some of its rows, into `target`."""
        if name not in self.tensors:
            self.problems.append(f"{name} is missing")
            return
        self.unused.discard(name)
        whole = self.tensors[name]
        value = whole[rows]
        if value.shape != target.shape:
            self.problems.append(f"{name} is {tuple(value.shape)}, not {tuple(target.shape)}")
            return
        if not bool(whole.isfinite().all()):
            self.problems.append(f"{name} holds what is no number")
            return
        target.copy_(value)

    def finish(self) -> None:
        """Says what did not fit.

        Raises:
            CheckpointError: a tensor was missing, of another shape, of a layer too many, or no
                numbers.
        """
        self.problems += [
            f"{name} is unknown" for name in sorted(self.unused) if not name.endswith(self.spare)
        ]
        if not self.problems:
            return
        told = self.problems[:MOST]
        if more := len(self.problems) - len(told):
            told.append(f"and {more} more")
        raise CheckpointError("model.safetensors does not fit its config.json: " + "; ".join(told))
