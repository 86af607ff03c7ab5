"""Where documents come from. The prefix of a path chooses the reader:

    corpus/  book.txt  logs/**/*.log    files
    -                                   standard input
    hf:NAME/config@split#column         a dataset of the Hub, or one on this disk
    stdlib:                             the source code of Python's standard library

A reader only names documents; each is read when it is wanted. A document's name is relative to
its root and has forward slashes, so that it is the same on every machine.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from longspan.registry import Component


@dataclass(frozen=True)
class Document:
    """A document that has not been read yet.

    Attributes:
        name: relative to the reader's root.
        read: its content.
        origin: what an error should name: the path, where there is one.
        once: `read` works only once.
    """

    name: str
    read: Callable[[], bytes]
    origin: str
    once: bool = False


@dataclass(frozen=True)
class Reader(Component, kind="reader", folder="longspan.data.readers"):
    """A source of documents.

    Attributes:
        path: what follows the prefix.
    """

    path: str = ""

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """The documents, always in the same order.

        Raises:
            DataError: there are none, or they cannot be read.
        """


def reader(path: str) -> Reader:
    """The reader that the prefix of `path` names; files if it names none."""
    if path == "-":
        return Reader.find("stdin")()
    prefix, colon, rest = path.partition(":")
    if colon and prefix in Reader.all():
        return Reader.find(prefix)(rest)
    return Reader.find("files")(path)


def documents(path: str | tuple[str, ...]) -> Iterator[Document]:
    """The documents of one path or several, each once, even where two paths lead to it.

    Raises:
        DataError: as `Reader.documents`.
    """
    seen = set()
    for one in (path,) if isinstance(path, str) else path:
        for document in reader(one).documents():
            if document.origin not in seen:
                seen.add(document.origin)
                yield document
