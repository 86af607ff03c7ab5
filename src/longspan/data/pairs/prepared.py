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
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longspan.data.cache import cache_root, ensure
from longspan.data.corpus import dtype
from longspan.data.pairs.config import EVALUATED, PairsConfig
from longspan.data.pairs.corpus import Pairs, assemble, encoded
from longspan.data.pairs.records import Record, Records
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
        lambda place: _build(place, plan, codec or _fit(config, plan), hash),
        lambda place: _problem(place, plan, hash),
    )
    splits = _open(folder, plan)
    return splits if config.longest is None else _shorter(splits, config.longest)


@dataclass(frozen=True)
class Part:
    """The records of a split: those of `records` that `chosen` says, in order.

    Attributes:
        records: where they are.
        chosen: (n,) bool, which of them; all others are another split's.
        sha256: of all of them.
    """

    records: Records
    chosen: NDArray[np.bool_]
    sha256: str

    def __iter__(self) -> Iterator[Record]:
        """The chosen ones.

        Raises:
            DataError: they are no longer what they were when they were hashed.
        """
        digest = hashlib.sha256()
        for record, mine in zip(self.records, self.chosen.tolist(), strict=False):
            digest.update(_bytes(record))
            if mine:
                yield record
        if digest.hexdigest() != self.sha256:
            raise DataError(f"{self.records.name}: changed while it was read; start again")


Plan = dict[str, Part | None]


def _plan(config: PairsConfig) -> Plan:
    plan: Plan = dict.fromkeys(SPLITS)
    paths = {"path": config.path}
    for split in EVALUATED:
        path = getattr(config, split)
        if isinstance(path, str | tuple) and path:
            for name, other in paths.items():
                if _same(path, other):
                    raise DataError(
                        f"data.{split} and data.{name} are the same records, {_name(path)}; name "
                        "others, or give a fraction of data.path"
                    )
            paths[split] = path
            records = Records(path, config.source, config.target)
            sha256, sources = _digest(records)
            plan[split] = Part(records, np.ones(len(sources), bool), sha256)
    records = Records(config.path, config.source, config.target)
    sha256, sources = _digest(records)
    chosen = np.array(assign(sources, config.fraction("valid"), config.fraction("test")))
    for split in SPLITS:
        if plan[split] is None:
            plan[split] = Part(records, chosen == split, sha256)
    return plan


def _same(path: Any, other: Any) -> bool:
    ours, theirs = ((one,) if isinstance(one, str) else one for one in (path, other))
    return list(map(_real, ours)) == list(map(_real, theirs))


def _real(path: str) -> str:
    return path if path.startswith("hf:") else os.path.realpath(os.path.expanduser(path))


def _name(path: Any) -> str:
    return path if isinstance(path, str) else " and ".join(path)


def _digest(records: Records) -> tuple[str, list[str]]:
    """sha256 over the records, and of each source a name by which it is assigned to a split."""
    digest, sources = hashlib.sha256(), []
    for record in records:
        digest.update(_bytes(record))
        sources.append(hashlib.sha256(record.source.encode()).hexdigest()[:16])
    return digest.hexdigest(), sources


def _bytes(record: Record) -> bytes:
    texts = [text.encode() for text in (record.source, *record.targets)]
    return b"%d %s " % (record.number, str([*map(len, texts)]).encode()) + b"".join(texts)


def _hash(config: PairsConfig, codec: Codec | None, plan: Plan) -> str:
    choice = {"name": config.tokenizer.name, **asdict(config.tokenizer)}
    tokenizer = codec.fingerprint if codec else choice
    sources = {
        split: [part.sha256, hashlib.sha256(np.packbits(part.chosen).tobytes()).hexdigest()]
        for split, part in plan.items()
        if part is not None
    }
    content = json.dumps([FORMAT, tokenizer, sources], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def _fit(config: PairsConfig, plan: Plan) -> Codec:
    part, here = plan["train"], ""
    assert part is not None

    def contents() -> Iterator[bytes]:
        nonlocal here
        for record in part:
            here = f"{part.records.place(record.number)}: "
            yield record.source.encode()
            yield record.targets[0].encode()
            here = ""

    try:
        return config.tokenizer.fit(contents())
    except DataError as error:
        raise DataError(f"{here}{error}") from error


def _build(place: Path, plan: Plan, codec: Codec, hash: str) -> None:
    codec.save(place)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "hash": hash,
        "fingerprint": codec.fingerprint,
        "splits": {},
    }
    for split, part in plan.items():
        assert part is not None
        lengths, numbers = [], []
        with (
            open(place / f"{split}.bin", "wb") as file,
            open(place / f"{split}.jsonl", "w", encoding="utf-8") as texts,
        ):
            for record, source, target in encoded(part, part.records, codec):
                file.write(source.tobytes() + target.tobytes())
                lengths += [len(source), len(target)]
                numbers.append(record.number)
                if split in EVALUATED:
                    texts.write(json.dumps(record.targets) + "\n")
        np.array(lengths, "<i8").tofile(place / f"{split}.lengths")
        np.array(numbers, "<i8").tofile(place / f"{split}.numbers")
        manifest["splits"][split] = {"records": len(numbers), "tokens": sum(lengths)}
    (place / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def _problem(place: Path, plan: Plan, hash: str) -> str | None:
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        if manifest["hash"] != hash:
            return f"{MANIFEST} is of other data"
        if Codec.load(place).fingerprint != manifest["fingerprint"]:
            return "the tokenizer is another"
        splits = _open(place, plan)
        for split in SPLITS:
            pairs, want = getattr(splits, split), manifest["splits"][split]
            have = {"records": len(pairs), "tokens": len(pairs.tokens)}
            sizes = {len(pairs.numbers), len(pairs.lengths), want["records"]}
            if split in EVALUATED:
                sizes.add(len(pairs.references))
            if have != want or len(sizes) != 1 or pairs.lengths.sum() != want["tokens"]:
                return f"{split} has {have}, not {want}"
    except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _open(place: Path, plan: Plan) -> PairSplits:
    manifest = json.loads((place / MANIFEST).read_bytes())
    codec = Codec.load(place)
    pairs = {}
    for split, part in plan.items():
        assert part is not None
        texts = (place / f"{split}.jsonl").read_text("utf-8").split("\n")[:-1]
        pairs[split] = assemble(
            _map(place / f"{split}.bin", dtype(codec)),
            np.fromfile(place / f"{split}.lengths", "<i8"),
            np.fromfile(place / f"{split}.numbers", "<i8"),
            tuple(tuple(json.loads(text)) for text in texts) if split in EVALUATED else None,
            part.records,
            codec,
        )
    return PairSplits(**pairs, codec=codec, hash=manifest["hash"], folder=place)


def _map(file: Path, dtype: str) -> NDArray[Any]:
    if file.stat().st_size == 0:  # which cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(file, dtype, mode="r")


def _shorter(splits: PairSplits, longest: int) -> PairSplits:
    fits = splits.train.lengths.max(1) <= longest
    if not fits.any():
        raise DataError(
            f"data.longest: {longest} leaves nothing to train on; the shortest record has "
            f"{splits.train.lengths.max(1).min()} tokens"
        )
    if not fits.all():
        log.warning(
            "%d of %d records of training have more than data.longest: %d tokens and are left out",
            (~fits).sum(),
            len(fits),
            longest,
        )
    return replace(splits, train=splits.train.select(fits))
