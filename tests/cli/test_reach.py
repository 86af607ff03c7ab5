"""`longspan reach`: files it writes, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import Result, refused

SMALL = ("--targets", 64, "--pieces", 2, "--samples", 1, "--threads", 1, "--device", "cpu")
Cli = Callable[..., Result]


def test_it_measures_a_run(cli: Cli, trained: Path, tmp_path: Path, corpus: Path) -> None:
    page = tmp_path / "out" / "reach.html"
    result = cli("reach", trained, "--data", corpus, "--longest", 64, "--to", page, *SMALL)
    assert result.status == 0, result.err
    assert result.out.splitlines()[-1] == str(page)
    assert "effective" in result.out
    found = json.loads(page.with_suffix(".json").read_text())
    (model,) = found["models"]
    assert (model["unit"], model["memory"], model["segment"]) == ("byte", 32, 32)
    assert found["plan"]["longest"] == 64
    assert model["effective"]["tokens"] <= 64
    assert model["recl"] == [], "of a group"
    assert "What its memory is worth" in page.read_text()


def test_its_own_test_data_are_read_where_none_are_named(
    cli: Cli, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    result = cli("reach", run, "--longest", 32, *SMALL)
    assert result.status == 0, result.err
    assert (run / "reach.html").is_file()
    assert json.loads((run / "reach.json").read_text())["data"]["path"] == "the run's own test data"


def test_bad_input_gets_one_line(
    cli: Cli, trained: Path, trained_bpe: Path, corpus: Path, tmp_path: Path
) -> None:
    assert "name a run" in refused(cli("reach"))
    asked = ("reach", trained, "--data", corpus, "--longest")
    assert "ask for --longest" in refused(cli(*asked, 10**6))
    assert "--targets must be 1 or more" in refused(cli(*asked, 8, "--targets", 0))
    assert "have other vocabularies" in refused(cli("reach", trained, trained_bpe))
    assert "a run knows; leave it out" in refused(cli(*asked, 8, "--units", "bytes"))
    page = tmp_path / "x.json"
    said = refused(cli(*asked, 8, "--to", page))
    assert f"{page} is where its JSON goes; name {page.with_suffix('.html')}" in said
    assert not page.exists()
    assert "is no run" in refused(cli("reach", corpus))
    assert "there is no such folder or file" in refused(cli("reach", f"hf:{tmp_path / 'none'}"))


def test_a_tokenizer_of_another_run_is_refused(
    cli: Cli, trained: Path, trained_bpe: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.copy(trained_bpe / "tokenizer.json", run / "tokenizer.json")
    assert "tokenizer" in refused(cli("reach", run))


def test_it_measures_a_model_of_hugging_face(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=257,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=160,
        bos_token_id=256,
        eos_token_id=256,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt")
    name = f"hf:{tmp_path / 'gpt'}"
    assert "name some with --data" in refused(cli("reach", name))
    page = tmp_path / "reach.html"
    words = ("reach", name, "--units", "bytes", "--data", corpus, "--to", page, *SMALL)
    result = cli(*words)
    assert result.status == 0, result.err
    found = json.loads(page.with_suffix(".json").read_text())
    assert found["plan"]["longest"] == 160 - 64, "as far as its positions reach"
    assert found["models"][0]["memory"] == 0
    assert "carries no memory from one window to the next" in page.read_text()
    assert "--longest 96 or less" in refused(cli(*words, "--longest", 97))
    other = f"hf:{shutil.copytree(tmp_path / 'gpt', tmp_path / 'b' / 'gpt')}"
    result = cli(*words[:2], other, *words[2:], "--longest", 16)
    assert result.status == 0, result.err
    found = json.loads(page.with_suffix(".json").read_text())
    assert [model["name"] for model in found["models"]] == [name, other], "both are called gpt"
