"""Tokenised once, kept, and found again.

What `prepare` makes lies in a folder of the cache that is called after what it was made of:

    data-0123456789abcdef/
        train.bin  valid.bin  test.bin      token ids, uint16 or uint32, little-endian
        tokenizer.json                      the fitted tokenizer
        manifest.json                       what they were made of, and where each document begins

Sources are read and hashed each time, so that what is used is always what is there now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longspan.data.cache import cache_root, ensure, mapped
from longspan.data.config import DataConfig
from longspan.data.corpus import Corpus, Entry, Tape, assemble, dtype
from longspan.data.progress import progress
from longspan.data.reader import Document, documents
from longspan.data.split import SPLITS, assign, ranges, rank
from longspan.data.spool import Spool
from longspan.data.tokenizer import Codec
from longspan.data.units import NotUTF8, pieces
from longspan.errors import CheckpointError, DataError

FORMAT = 1
MANIFEST = "manifest.json"
DTYPES = {"<u2": "uint16", "<u4": "uint32"}


@dataclass(frozen=True)
class Splits:
    """What `prepare` gives.

    Attributes:
        train: never empty.
        valid: empty if its fraction is 0, or if there was too little to share.
        test: the same.
        codec: the tokenizer, fitted to `train`.
        hash: sha256 (hex) over all that the splits were made of.
        folder: where they lie.
    """

    train: Corpus
    valid: Corpus
    test: Corpus
    codec: Codec
    hash: str
    folder: Path


def prepare(config: DataConfig, codec: Codec | None = None) -> Splits:
    """Tokenises and splits, or finds what was tokenised before.

    The process may be killed at any moment, and several may prepare the same data at once.

    Args:
        config: what to prepare.
        codec: a tokenizer to use (that of a run which goes on, say) instead of fitting one.

    Raises:
        DataError: there is nothing to read, it cannot be read or encoded, or the cache cannot be
            written.
    """
    with Spool() as spool:
        plan = _plan(config, spool)
        hash = _hash(config, codec, plan)
        folder = cache_root(config.cache) / f"data-{hash[:16]}"
        ensure(
            folder,
            lambda place: _build(place, plan, config, codec or _fit(config, plan), hash),
            lambda place: _problem(place, hash),
        )
    return _open(folder)


@dataclass(frozen=True)
class Part:
    """A stretch of a document: all of it, but where an only document is shared."""

    document: Document
    size: int
    sha256: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The document's, with the stretch where it is not all."""
        whole = self.stop - self.start == self.size
        return self.document.name + ("" if whole else f"[{self.start}:{self.stop}]")

    def read(self) -> bytes:
        """The content of the whole document.

        Raises:
            DataError: it is no longer what it was when it was hashed.
        """
        content = self.document.read()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataError(f"{self.document.origin}: changed while it was read; start again")
        return content


Plan = dict[str, list[Part]]


def _plan(config: DataConfig, spool: Spool) -> Plan:
    plan: Plan = {split: [] for split in SPLITS}
    with progress("reading", None) as advance:
        for split in ("valid", "test"):
            if isinstance(path := getattr(config, split), str):
                plan[split] = list(_parts(path, set(), spool, advance))
        apart = {part.document.origin for parts in plan.values() for part in parts}
        main = list(_parts(config.path, apart, spool, advance))
    valid, test = config.fraction("valid"), config.fraction("test")
    if len(main) == 1:
        (only,) = main
        for split, (start, stop) in ranges(only.read(), valid, test).items():
            if stop > start:
                plan[split].append(Part(only.document, only.size, only.sha256, start, stop))
    else:
        chosen = assign([part.document.name for part in main], valid, test)
        for part, split in zip(main, chosen, strict=True):
            plan[split].append(part)
    if config.documents:
        # neighbours in a folder are alike; a lane that reads on through them all forgets the rest
        for parts in plan.values():
            parts.sort(key=lambda part: (rank(part.document.name), part.document.name))
    return plan


def _parts(
    path: str | tuple[str, ...], apart: set[str], spool: Spool, advance: Callable[[int], None]
) -> Iterator[Part]:
    left_out = size = 0
    for document in documents(path):
        if document.origin in apart:
            left_out += 1
            continue
        content = document.read()
        if document.once:
            document = spool.keep(document, content)
        size += len(content)
        advance(len(content))
        digest = hashlib.sha256(content).hexdigest()
        yield Part(document, len(content), digest, 0, len(content))
    if size == 0:
        reason = (
            "every document is named by data.valid or data.test as well; name more documents"
            if left_out
            else "every document is empty"
        )
        raise DataError(f"{path if isinstance(path, str) else ', '.join(path)}: {reason}")


def _hash(config: DataConfig, codec: Codec | None, plan: Plan) -> str:
    choice = {"name": config.tokenizer.name, **asdict(config.tokenizer)}
    tokenizer = codec.fingerprint if codec else choice
    sources = {
        split: [[p.document.name, p.size, p.sha256, p.start, p.stop] for p in parts]
        for split, parts in plan.items()
    }
    content = json.dumps([FORMAT, config.documents, tokenizer, sources], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def _fit(config: DataConfig, plan: Plan) -> Codec:
    here, start = "", 0

    def contents() -> Iterator[bytes]:
        nonlocal here, start
        for part in plan["train"]:
            for begin, piece in pieces(part.read(), part.start, part.stop):
                here, start = f"{part.document.origin}: ", begin
                yield piece
                advance(len(piece))
                here = ""  # an error of reading names the file itself

    total = sum(part.stop - part.start for part in plan["train"])
    with progress("fitting the tokenizer", total) as advance:
        try:
            return config.tokenizer.fit(contents())
        except NotUTF8 as error:
            raise DataError(f"{here}{error.later(start)}") from error
        except DataError as error:
            raise DataError(f"{here}{error}") from error


def _build(place: Path, plan: Plan, config: DataConfig, codec: Codec, hash: str) -> None:
    codec.save(place)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "hash": hash,
        "dtype": DTYPES[dtype(codec)],
        "tokenizer": {"name": codec.kind, "unit": codec.unit, "size": codec.size},
        "fingerprint": codec.fingerprint,
        "splits": {},
    }
    total = sum(part.stop - part.start for parts in plan.values() for part in parts)
    with progress("tokenising", total) as advance:
        for split, parts in plan.items():
            with open(place / f"{split}.bin", "wb") as file:
                tape = Tape(codec, lambda ids: file.write(ids.tobytes()), config.documents)
                for part in parts:
                    tape.add(part.name, part.read(), part.start, part.stop, part.document.origin)
                    advance(part.stop - part.start)
            manifest["splits"][split] = {
                "tokens": tape.length,
                "bytes": sum(entry.bytes for entry in tape.entries),
                "documents": [asdict(entry) for entry in tape.entries],
            }
    (place / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def _problem(place: Path, hash: str) -> str | None:
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        if manifest["hash"] != hash:
            return f"{MANIFEST} is of other data"
        if Codec.load(place).fingerprint != manifest["fingerprint"]:
            return "the tokenizer is another"
        for split in SPLITS:
            tokens = manifest["splits"][split]["tokens"]
            want = tokens * np.dtype(manifest["dtype"]).itemsize
            have = (place / f"{split}.bin").stat().st_size
            if have != want:
                return f"{split}.bin has {have} bytes, not {want}"
        _open(place)
    except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _open(place: Path) -> Splits:
    manifest = json.loads((place / MANIFEST).read_bytes())
    codec = Codec.load(place)
    corpora = {}
    for split in SPLITS:
        entries = [Entry(**entry) for entry in manifest["splits"][split]["documents"]]
        corpora[split] = assemble(mapped(place / f"{split}.bin", dtype(codec)), entries, codec)
    return Splits(**corpora, codec=codec, hash=manifest["hash"], folder=place)
