"""Diverse beam search: groups of beams that keep off each other's words (1610.02424).

At every step the groups choose one after another; a token counts `diversity` less for each beam to
which a group before appended it at this step (Hamming diversity, algorithm 1 there). The penalty
decides this choice and is not carried on: scores stay the model's, so texts of different groups
compare. Hugging Face's and fairseq's implementations carry it on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from longspan.decoding.beams import Beams, BeamSearch
from longspan.decoding.search import Request, Search, Strategy


@dataclass(frozen=True, kw_only=True)
class Diverse(Strategy, name="diverse"):
    """Takes the best of the texts that groups of beams find.

    Attributes:
        beams: K, texts written at once of each row, in all groups together.
        groups: G; each has K / G beams.
        diversity: what an earlier group's token counts less; 0 for groups that do the same.
        length_penalty, early_stopping: of each group, as for `beam`.
        n_best: texts given back of each row, at most.
    """

    commits: ClassVar[bool] = False

    beams: int = 4
    groups: int = 4
    diversity: float = 0.5
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    n_best: int = 1

    def __post_init__(self) -> None:
        self._config()

    def _config(self) -> Beams:
        return Beams(
            beams=self.beams,
            groups=self.groups,
            diversity=self.diversity,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            n_best=self.n_best,
        )

    def search(self, request: Request) -> Search:
        yield from ()
        return BeamSearch(request, self._config()).run()
