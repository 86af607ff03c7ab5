"""Data: documents in, token ids out.

    readers      where documents come from: files, standard input, the Hub, Python's own library
    tokenizers   what a token is: a byte, a piece of a byte-level BPE, a word
    corpus       tokens on disk, mapped into memory, split by document
    lanes        batches that a model with memory can be trained on
    tables       rows with named fields: JSON lines, TSV, CSV, Parquet, datasets of the Hub
    pairs        sequences and what is written about them, in batches of like length
    spans        questions whose answers are stretches of a context
    labelled     contents and their classes; `inputs` make sequences of them

`import longspan.data` does not import torch: only `Lanes` and `Batch` need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.data.config import DataConfig
from longspan.data.corpus import Corpus, read
from longspan.data.prepared import Splits, prepare
from longspan.data.tokenizer import Codec, Tokenizer

if TYPE_CHECKING:
    from longspan.data.lanes import Batch, Lanes

__all__ = [
    "Batch",
    "Codec",
    "Corpus",
    "DataConfig",
    "Lanes",
    "Splits",
    "Tokenizer",
    "prepare",
    "read",
]


def __getattr__(name: str) -> Any:
    if name in ("Batch", "Lanes"):
        from longspan.data import lanes

        return getattr(lanes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
