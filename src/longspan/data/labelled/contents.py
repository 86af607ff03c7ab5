"""Contents alone: what a trained model is asked about, where it takes more than texts."""

from __future__ import annotations

from collections.abc import Iterator

from longspan.data.labelled.collections.folders import Folders
from longspan.data.labelled.item import Item
from longspan.data.pairs.sources import sources


def contents(path: str, source: str) -> Iterator[Item]:
    """The contents that a path names.

    Args:
        path: a folder of files, a table, a text file with a content a line, or "-" for such lines
            on standard input.
        source: the column of a table that holds them.

    Raises:
        DataError: there are none, one is empty, or they cannot be read.
    """
    if Folders.holds(path):
        yield from Folders(path).contents()
    else:
        yield from (Item(place, text) for place, (text,) in sources(path, [source]))
