"""Beam search: writes on the few best texts at once, and takes the best.

What is put aside, and when a row is done, is as in Hugging Face (`beams.py` says where not).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from longspan.decoding.beams import Beams, BeamSearch
from longspan.decoding.search import Request, Search, Strategy


@dataclass(frozen=True, kw_only=True)
class Beam(Strategy, name="beam"):
    """Takes the best of the texts that `beams` beams find.

    Attributes:
        beams: K, texts written at once of each row.
        length_penalty: the power of the length by which log-probabilities are divided; above 0
            favours long texts.
        early_stopping: true, false or "never" (`Beams`).
        n_best: texts given back of each row, at most.
        coverage_penalty: beta, how much counts against a text what it has not looked at of the
            source (1609.08144, equation 14; `coverage.py`); 0 for nothing.
    """

    commits: ClassVar[bool] = False

    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    n_best: int = 1
    coverage_penalty: float = 0.0

    def __post_init__(self) -> None:
        self._config()

    def _config(self) -> Beams:
        return Beams(
            beams=self.beams,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            n_best=self.n_best,
            coverage_penalty=self.coverage_penalty,
        )

    def search(self, request: Request) -> Search:
        yield from ()
        return BeamSearch(request, self._config()).run()
