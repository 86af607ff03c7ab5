"""`longspan generate` on a terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longspan.decoding.sampling import Sampling

import longspan
from tests.tiny import PATIENCE, Result, refused, start

GENERATE = ("generate", "--threads", 1)


def test_the_prompt_and_what_follows(cli: Callable[..., Result], trained: Path) -> None:
    asked = (*GENERATE, trained, "--prompt", "äb", "--max-tokens", 30, "--top-p", 0.9, "--seed", 3)
    text = longspan.generate(longspan.load(trained), "äb", max_tokens=30, top_p=0.9, seed=3)
    assert cli(*asked) == Result(0, f"äb{text}\n", "")


def test_a_character_of_several_tokens_is_printed_when_it_is_whole(
    cli: Callable[..., Result], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was printed by then is seen: nothing waits in a buffer."""
    ids = iter([*"aä€".encode(), 0xE2, 0x82, *b"b", 0xC3])
    pieces: list[str] = []

    class Screen(io.StringIO):
        def flush(self) -> None:
            pieces.append(self.getvalue())

    def draw(_: Sampling, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.tensor([next(ids)])

    monkeypatch.setattr(Sampling, "draw", draw)
    monkeypatch.setattr(sys, "stdout", Screen())
    cli(*GENERATE, trained, "--prompt", ">", "--max-tokens", 10)
    lost = "\N{REPLACEMENT CHARACTER}"
    seen = [">", ">a", ">a", ">aä", ">aä", ">aä", ">aä€", ">aä€", ">aä€", f">aä€{lost}b"]
    assert pieces[:11] == [*seen, f">aä€{lost}b"]
    assert pieces[11] == f">aä€{lost}b{lost}\n"


def test_a_reader_who_has_enough_ends_it_cleanly(trained: Path) -> None:
    process = start(*GENERATE, trained, "--max-tokens", 10**6, "--seed", 1)
    head = ["head", "-c", "5"]
    subprocess.run(head, stdin=process.stdout, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_bad_settings_are_refused(cli: Callable[..., Result], trained: Path) -> None:
    said = refused(cli(*GENERATE, trained, "--temperature", 0, "--top-p", 3))
    assert "2 problems" in said
    assert "max_tokens must be 0 or more" in refused(cli(*GENERATE, trained, "--max-tokens", -2))


def test_a_prompt_that_the_vocabulary_cannot_say_is_refused(
    cli: Callable[..., Result], trained_bpe: Path
) -> None:
    # what a terminal could not decode reaches a program as a lone surrogate
    result = cli(*GENERATE, trained_bpe, "--prompt", "\udcff")
    assert "the prompt is not valid text" in refused(result)
    assert result.out == ""


def test_a_prompt_that_is_no_text_is_bytes_where_bytes_will_do(
    cli: Callable[..., Result], trained: Path
) -> None:
    result = cli(*GENERATE, trained, "--prompt", "a\udcff", "--max-tokens", 0)
    assert result == Result(0, "a\N{REPLACEMENT CHARACTER}\n", "")
