"""Contents alone: what a trained model is asked about, where it takes more than texts."""

from __future__ import annotations

import os
from collections.abc import Iterator

from longspan.data.labelled.collection import Collection
from longspan.data.labelled.item import File, Item
from longspan.data.pairs.sources import sources


def contents(path: str, source: str, files: bool = False) -> Iterator[Item]:
    """The contents that a path names.

    Args:
        path: a folder of files, a table, another collection, a text file with a content a line, or
            "-" for such lines on standard input.
        source: the column of a table that holds them.
        files: a file that is none of these is a content itself: an image, say.

    Raises:
        DataError: there are none, one is empty, or they cannot be read.
    """
    for member in Collection.all().values():
        if member.holds(path):
            yield from member(path, source).contents()
            return
    if files and os.path.isfile(os.path.expanduser(path)):
        yield Item(path, File(os.path.expanduser(path)))
        return
    yield from (Item(place, text) for place, (text,) in sources(path, [source]))
