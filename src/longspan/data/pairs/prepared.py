"""Pairs that are tokenised once, kept, and found again.

What `prepare` makes lies in a folder of the cache that is called after what it was made of:

    pairs-0123456789abcdef/
        train.bin  valid.bin  test.bin          token ids: source, target, source, target, …
        train.lengths  valid.lengths  …         of each, int64
        train.numbers  valid.numbers  …         line or row of each record, int64
        valid.jsonl  test.jsonl                 references: a list of texts a record
        tokenizer.json                          the fitted tokenizer
        manifest.json                           what they were made of

Records are read and hashed each time, so that what is used is always what is there now.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longspan.config import plain
from longspan.data.cache import cache_root, ensure, mapped
from longspan.data.corpus import dtype
from longspan.data.pairs.config import EVALUATED, Location, PairsConfig
from longspan.data.pairs.corpus import Pairs, assemble, encoded
from longspan.data.pairs.records import Record, Records
from longspan.data.progress import progress
from longspan.data.split import SPLITS, assign
from longspan.data.tokenizer import Codec
from longspan.errors import CheckpointError, DataError

FORMAT = 1
MANIFEST = "manifest.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairSplits:
    """What `prepare` gives.

    Attributes:
        train: never empty; its references are not kept.
        valid: empty if its fraction is 0, or if there was too little to share.
        test: the same.
        codec: the tokenizer, fitted to `train`.
        hash: sha256 (hex) over all that the splits were made of.
        folder: where they lie.
    """

    train: Pairs
    valid: Pairs
    test: Pairs
    codec: Codec
    hash: str
    folder: Path


Plan = dict[str, "Part"]


def prepare(config: PairsConfig, codec: Codec | None = None) -> PairSplits:
    """Tokenises and splits, or finds what was tokenised before.

    The process may be killed at any moment, and several may prepare the same data at once.

    Args:
        config: what to prepare.
        codec: a tokenizer to use (that of a run which goes on, say) instead of fitting one.

    Raises:
        DataError: there is nothing to read, it cannot be read or encoded, or the cache cannot be
            written.
    """
    plan = _plan(config)
    hash = _hash(config, codec, plan)
    folder = cache_root(config.cache) / f"pairs-{hash[:16]}"
    ensure(
        folder,
        lambda place: _build(place, plan, codec or _fit(config, plan["train"]), hash),
        lambda place: _problem(place, plan, hash),
    )
    splits = _open(folder, plan)
    return splits if config.longest is None else _shorter(splits, config.longest)


@dataclass(frozen=True)
class Part:
    """The records of a split: those of a path that the split was given.

    Attributes:
        records: all of the path.
        chosen: (n,) bool, which of them.
        sha256: (hex) of all of them.
        size: bytes of the texts of all of them.
    """

    records: Records
    chosen: NDArray[np.bool_]
    sha256: str
    size: int

    def read(self, advance: Callable[[int], None]) -> Iterator[Record]:
        """The chosen ones.

        Args:
            advance: is told how many bytes of text were read.

        Raises:
            DataError: they are no longer what they were when they were hashed.
        """
        digest = hashlib.sha256()
        for record, mine in zip(self.records, self.chosen.tolist(), strict=False):
            content = _bytes(record)
            digest.update(content)
            advance(len(content))
            if mine:
                yield record
        if digest.hexdigest() != self.sha256:
            raise DataError(f"{self.records.name}: changed while it was read; start again")


def _plan(config: PairsConfig) -> Plan:
    plan: Plan = {}
    with progress("reading", None) as advance:
        for split in EVALUATED:
            path = getattr(config, split)
            if isinstance(path, str | tuple) and path:
                if _same(path, config.path):
                    raise DataError(
                        f"data.{split} names the same records as data.path; name others, or give "
                        "a fraction"
                    )
                part, _ = _part(path, config, advance)
                plan[split] = part
        main, sources = _part(config.path, config, advance)
    places = assign(sources, config.fraction("valid"), config.fraction("test"))
    for split in SPLITS:
        if split not in plan:
            plan[split] = replace(main, chosen=np.array([place == split for place in places]))
    return {split: plan[split] for split in SPLITS}


def _part(
    path: Location, config: PairsConfig, advance: Callable[[int], None]
) -> tuple[Part, list[str]]:
    """All records of a path, and of each source a name by which it is assigned to a split."""
    records = Records(path, config.source, config.target, config.separator)
    digest, size, sources = hashlib.sha256(), 0, []
    for record in records:
        content = _bytes(record)
        digest.update(content)
        size += len(content)
        advance(len(content))
        sources.append(hashlib.sha256(record.source.encode()).hexdigest()[:16])
    return Part(records, np.ones(len(sources), bool), digest.hexdigest(), size), sources


def _same(path: Location, other: Location) -> bool:
    ours, theirs = ((one,) if isinstance(one, str) else one for one in (path, other))
    return list(map(_real, ours)) == list(map(_real, theirs))


def _real(path: str) -> str:
    return path if path.startswith("hf:") else os.path.realpath(os.path.expanduser(path))


def _bytes(record: Record) -> bytes:
    """All of a record, so that no other has the same."""
    texts = [text.encode() for text in (record.source, *record.targets)]
    return f"{record.number} {[*map(len, texts)]} ".encode() + b"".join(texts)


def _hash(config: PairsConfig, codec: Codec | None, plan: Plan) -> str:
    tokenizer = codec.fingerprint if codec else plain(config.tokenizer)
    sources = [
        [part.sha256, hashlib.sha256(part.chosen.tobytes()).hexdigest()] for part in plan.values()
    ]
    content = json.dumps([FORMAT, tokenizer, sources], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def _fit(config: PairsConfig, part: Part) -> Codec:
    here = ""

    def contents() -> Iterator[bytes]:
        nonlocal here
        for record in part.read(advance):
            here = f"{part.records.place(record.number)}: "
            yield record.source.encode()
            yield record.targets[0].encode()
            here = ""  # an error of reading names the line itself

    with progress("fitting the tokenizer", part.size) as advance:
        try:
            return config.tokenizer.fit(contents())
        except DataError as error:
            raise DataError(f"{here}{error}") from error


def _build(place: Path, plan: Plan, codec: Codec, hash: str) -> None:
    codec.save(place)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "hash": hash,
        "dtype": np.dtype(dtype(codec)).name,
        "tokenizer": {"name": codec.kind, "unit": codec.unit, "size": codec.size},
        "fingerprint": codec.fingerprint,
        "splits": {},
    }
    with progress("tokenising", sum(part.size for part in plan.values())) as advance:
        for split, part in plan.items():
            lengths, numbers = [], []
            with (
                open(place / f"{split}.bin", "wb") as ids,
                open(place / f"{split}.jsonl", "w", encoding="utf-8") as references,
            ):
                records = part.read(advance)
                for record, source, target in encoded(records, part.records, codec):
                    ids.write(source.tobytes() + target.tobytes())
                    lengths += [len(source), len(target)]
                    numbers.append(record.number)
                    if split in EVALUATED:
                        references.write(json.dumps(record.targets) + "\n")
            np.array(lengths, "<i8").tofile(place / f"{split}.lengths")
            np.array(numbers, "<i8").tofile(place / f"{split}.numbers")
            manifest["splits"][split] = {"records": len(numbers), "tokens": sum(lengths)}
    (place / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def _problem(place: Path, plan: Plan, hash: str) -> str | None:
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        if manifest["hash"] != hash:
            return f"{MANIFEST} is of other data"
        splits = _open(place, plan)
        if splits.codec.fingerprint != manifest["fingerprint"]:
            return "the tokenizer is another"
        for split in SPLITS:
            pairs, want = getattr(splits, split), manifest["splits"][split]
            have = {"records": len(pairs.numbers), "tokens": len(pairs.tokens)}
            if have != want or pairs.lengths.shape != (want["records"], 2):
                return f"{split} has {have}, not {want}"
            if pairs.lengths.sum() != want["tokens"]:
                return f"{split}.lengths are of other data"
            if split in EVALUATED and len(pairs.references) != want["records"]:
                return f"{split}.jsonl has {len(pairs.references)} records, not {want['records']}"
    except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _open(place: Path, plan: Plan) -> PairSplits:
    codec = Codec.load(place)
    pairs = {}
    for split, part in plan.items():
        lines = (place / f"{split}.jsonl").read_text("utf-8").split("\n")[:-1]
        pairs[split] = assemble(
            mapped(place / f"{split}.bin", dtype(codec)),
            np.fromfile(place / f"{split}.lengths", "<i8"),
            np.fromfile(place / f"{split}.numbers", "<i8"),
            tuple(tuple(json.loads(line)) for line in lines) if split in EVALUATED else None,
            part.records,
            codec,
        )
    manifest = json.loads((place / MANIFEST).read_bytes())
    return PairSplits(**pairs, codec=codec, hash=manifest["hash"], folder=place)


def _shorter(splits: PairSplits, longest: int) -> PairSplits:
    widths = splits.train.lengths.max(1)
    fits = widths <= longest
    if not fits.any():
        raise DataError(
            f"data.longest: {longest} leaves nothing to train on; the shortest record has "
            f"{widths.min()} tokens"
        )
    if fits.all():
        return splits
    log.warning(
        "%d of %d records of training have more than data.longest: %d tokens in source or target "
        "and are left out",
        (~fits).sum(),
        len(fits),
        longest,
    )
    hash = hashlib.sha256(f"{splits.hash} {longest}".encode()).hexdigest()
    return replace(splits, train=splits.train.select(fits), hash=hash)
