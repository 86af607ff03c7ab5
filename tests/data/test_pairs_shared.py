"""Real pairs: the translations of Multi30k, the dialogues and summaries of SAMSum."""

from __future__ import annotations

import gzip
import time
import zipfile
from pathlib import Path

import pytest

from longspan.data.pairs.batches import Batches
from longspan.data.pairs.config import PairsConfig
from longspan.data.pairs.prepared import prepare
from longspan.data.pairs.records import Records
from longspan.data.tokenizers.bpe import BPE
from longspan.errors import DataError

DATA = Path(__file__).parents[3] / "shared/data"
MULTI30K, SAMSUM = DATA / "mt_multi30k_en_de", DATA / "sum_samsum/samsum.zip"


def lines(file: str) -> list[str]:
    return gzip.decompress(Path(file).read_bytes()).decode().split("\n")[:-1]


@pytest.mark.skipif(not MULTI30K.is_dir(), reason=f"{MULTI30K} is not here")
def test_multi30k() -> None:
    path = {
        name: (f"{MULTI30K}/{file}.en.gz", f"{MULTI30K}/{file}.de.gz")
        for name, file in (("path", "train"), ("valid", "val"), ("test", "test_2016_flickr"))
    }
    begin = time.process_time()
    splits = prepare(PairsConfig(**path, tokenizer=BPE(vocab=8192)))  # type: ignore[arg-type]
    assert time.process_time() - begin < 20  # 4.3 s here
    assert [len(p) for p in (splits.train, splits.valid, splits.test)] == [29_000, 1014, 1000]
    assert splits.codec.size == 8192
    decode = splits.codec.decode
    assert decode(splits.train.source(0)) == b"Two young, White males are outside near many bushes."
    assert splits.train.name(0) == " and ".join(path["path"]) + " line 1"
    for side, file in enumerate(path["test"]):
        ours = splits.test.source if side == 0 else splits.test.target
        assert [decode(ours(i)).decode() for i in range(1000)] == lines(file)
    assert splits.test.references == tuple((line,) for line in lines(path["test"][1]))
    assert Batches(splits.train, 4096).padding < 0.08


@pytest.mark.skipif(not SAMSUM.is_file(), reason=f"{SAMSUM} is not here")
def test_samsum(tmp_path: Path) -> None:
    with zipfile.ZipFile(SAMSUM) as archive:
        archive.extractall(tmp_path)
    fields = {"source": "dialogue", "target": "summary"}
    with pytest.raises(DataError, match=r"train.json line 6055: field 'dialogue' is empty"):
        list(Records(f"{tmp_path}/samsum/train.json", **fields))
    config = PairsConfig(
        path=f"{tmp_path}/samsum/validation.json",
        valid="",
        test=f"{tmp_path}/samsum/test.json",
        tokenizer=BPE(vocab=2048),
        **fields,
    )
    splits = prepare(config)
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [818, 0, 819]
    dialogue = splits.codec.decode(splits.test.source(0)).decode()
    assert dialogue.startswith("Hannah: Hey, do you have Betty's number?\nAmanda: Lemme check\n")
    assert Batches(splits.train, 8192).padding < 0.25
