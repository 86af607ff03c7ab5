"""Strategies and filters of `longspan generate` beyond drawing and beams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import Result, refused, train_tiny

CLI = Callable[..., Result]


def test_a_smaller_run_writes_ahead(
    cli: CLI, trained: Path, trained_bpe: Path, corpus: Path, tmp_path: Path
) -> None:
    small = train_tiny(tmp_path / "small", corpus, **{"model.layers": 1, "train.steps": 5})
    words = ("generate", trained, "--prompt", "ab", "--max-tokens", 20, "--dtype", "float64")
    greedy = cli(*words, "--greedy")
    speculative = ("--strategy", "speculative", "--top-k", 1, "--ahead", 3)
    found = cli(*words, *speculative, "--draft", small, "--scores")
    assert found.out.splitlines()[0] == greedy.out.splitlines()[0]
    assert "drafted tokens taken" in found.out
    assert "go together" in refused(cli(*words, *speculative))
    assert "go together" in refused(cli(*words, "--greedy", "--draft", small))
    assert "another tokenizer" in refused(cli(*words, *speculative, "--draft", trained_bpe))


def test_contrastive(cli: CLI, trained: Path) -> None:
    words = ("generate", trained, "--max-tokens", 12, "--strategy", "contrastive")
    texts = {cli(*words, "--candidates", 5, "--alpha", alpha).out for alpha in (0, 0.9)}
    assert len(texts) == 2
    said = refused(cli(*words, "--temperature", 2))
    assert "contrastive draws nothing" in said
    assert "--alpha is of the strategy contrastive" in refused(
        cli("generate", trained, "--alpha", 1)
    )


def test_forms(cli: CLI, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("llguidance", reason="the extra 'constraints' is not installed")
    words = ("generate", trained, "--seed", 1)
    assert cli(*words, "--prefix", "(ä", "--max-tokens", 9).out.startswith("(ä")
    digits = cli(*words, "--regex", "[0-9]{4}")
    assert len(digits.out.strip()) == 4
    assert digits.out.strip().isdigit()
    assert not digits.err
    short = cli(*words, "--regex", "[0-9]{4}", "--max-tokens", 2)
    assert "ended by its length (2 tokens) and may be unfinished" in short.err
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["a", "b"]}')
    assert cli(*words, "--json-schema", schema).out.strip() in ('"a"', '"b"')
    assert "cannot be read" in refused(cli(*words, "--json-schema", tmp_path / "none.json"))
    assert "one of them" in refused(cli(*words, "--json-schema", schema, "--regex", "a"))
    assert "unclosed group" in refused(cli(*words, "--regex", "(a"))
