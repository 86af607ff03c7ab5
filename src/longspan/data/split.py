"""Which document is for training, which for validation, which for the test.

A document goes where the hash of its name says, so that it stays there when others come and go,
and on every machine. A corpus of one document is cut instead: its beginning is for training, its
end for the test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "valid", "test")

NEAR = 4096
"""How far before its place a cut may look for the end of a line, in bytes."""


def assign(names: Sequence[str], valid: float, test: float) -> list[str]:
    """The split of each document, by name.

    Training gets at least one. Of three or more, so does every split whose fraction is above 0.

    Args:
        names: of the documents.
        valid: fraction of the documents for validation.
        test: fraction for the test.
    """
    place = [rank(name) for name in names]
    split = ["valid" if x < valid else "test" if x < valid + test else "train" for x in place]
    wanted = ["train"]
    if len(names) >= 3:
        wanted += ["valid"] * (valid > 0) + ["test"] * (test > 0)
    for name in wanted:
        if name not in split:
            # it gets the document that the hash puts first in the split that has most
            giver = max(SPLITS, key=split.count)
            theirs = [i for i, s in enumerate(split) if s == giver]
            split[min(theirs, key=lambda i: (place[i], names[i]))] = name
    return split


def rank(name: str) -> float:
    """A number in [0, 1) that looks random and is the same everywhere."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def ranges(content: bytes, valid: float, test: float) -> dict[str, tuple[int, int]]:
    """Begin and end of each split's part of the only document.

    A cut falls after a newline, if there is one shortly before its place, else between two
    characters of UTF-8.
    """
    size = len(content)
    for_valid = max(round(size * valid), int(valid > 0))
    for_test = max(round(size * test), int(test > 0))
    parts = (size - for_valid - for_test, for_valid, for_test)
    near = min(NEAR, min((part for part in parts if part > 0), default=0) // 2)
    second = _cut(content, size - for_test, near) if for_test else size
    first = _cut(content, size - for_test - for_valid, near) if for_valid else second
    first = min(first, second)
    if first <= 0:  # too short to be shared
        first = second = size
    return {"train": (0, first), "valid": (first, second), "test": (second, size)}


def _cut(content: bytes, place: int, near: int) -> int:
    place = max(0, place)
    newline = content.rfind(b"\n", max(0, place - near), place)
    if newline >= 0:
        return newline + 1
    for back in range(min(4, place)):
        at = place - back
        if at >= len(content) or content[at] & 0xC0 != 0x80:
            return at
    return place
