"""Every verb on a run whose layers differ, and on one that takes none of the four words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import longspan
from longspan.training.run import own_data
from tests.tiny import Result, lines, refused, train_tiny

Cli = Callable[..., Result]

LAYERS: list[Any] = [
    {"mixer": "lstm"},
    {},
    {"mixer": {"name": "convolution", "width": 3}},
    {
        "pattern": {"name": "segments", "length": 32, "memory": 48},
        "memory": {"name": "recent", "tokens": 64},
    },
]
DIFFERENT = {"model.layers": 4, "model.stack": LAYERS, "train.steps": 30}
ALIKE = DIFFERENT | {"model.stack": LAYERS[:2]}
PURE = {
    "model.mixer": {"name": "lstm", "hidden": 24},
    "model.position": "none",
    "model.pattern": "causal",
    "model.memory": "none",
    "train.segment": 32,
    "train.steps": 30,
}
KINDS = {"different": DIFFERENT, "alike": ALIKE, "pure": PURE}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> dict[str, Path]:
    """A finished run of each kind. Not to be changed."""
    folder = tmp_path_factory.mktemp("stacks")
    return {name: train_tiny(folder / name, corpus, **kind) for name, kind in KINDS.items()}


every = pytest.mark.parametrize("kind", KINDS)


@every
def test_it_learns(runs: dict[str, Path], kind: str) -> None:
    rows = lines((runs[kind] / "metrics.jsonl").read_bytes())
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] - 0.5


@every
@torch.no_grad()
def test_a_stream_is_what_one_pass_gives(
    cli: Cli, runs: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    text = b"".join(b"%d bottles of beer\n" % n for n in range(40))
    (tmp_path / "text").write_bytes(text)
    stream = ("stream", "--threads", 1, runs[kind])
    rows = lines(cli(*stream, tmp_path / "text").out.encode())
    run = longspan.load(runs[kind])
    inputs = torch.tensor([[run.tokenizer.start, *text]])
    logits, _ = run.model(inputs[:, :-1])
    bits = -logits.double().log_softmax(-1).gather(2, inputs[:, 1:, None])[0, :, 0] / 0.6931471806
    assert [row["token"] for row in rows] == list(text)
    assert torch.tensor([row["bits"] for row in rows]) == pytest.approx(bits, abs=2e-4)
    # stopped anywhere and picked up it is the same, to the last digit
    halves = []
    for low, high in pairwise([0, 333, len(text)]):
        (tmp_path / "half").write_bytes(text[low:high])
        asked = (*stream, tmp_path / "half", "--state", tmp_path / "state")
        halves += lines(cli(*asked).out.encode())
    assert halves == rows


@every
def test_it_generates(cli: Cli, runs: dict[str, Path], kind: str) -> None:
    asked = ("generate", runs[kind], "--max-tokens", 40, "--seed", 1, "--threads", 1)
    said = cli(*asked).out
    assert said
    assert said == cli(*asked).out


# -- evaluate -------------------------------------------------------------------------------------


def evaluated(cli: Cli, run: Path, *arguments: Any) -> list[dict[str, Any]]:
    asked = ("evaluate", run, "--limit", 900, "--threads", 1, "--json", *arguments)
    return lines(cli(*asked).out.encode())


@pytest.mark.parametrize(
    ("kind", "name", "memory"),
    [
        ("different", "memory 32 and 64", None),
        ("alike", "memory 32", 32),
        ("pure", "a state of its own", None),
    ],
)
def test_evaluate_says_what_is_carried(
    cli: Cli, runs: dict[str, Path], kind: str, name: str, memory: int | None
) -> None:
    (row,) = evaluated(cli, runs[kind])
    assert (row["name"], row["memory"]) == (name, memory)
    run = longspan.load(runs[kind])
    score = longspan.evaluate(run.model, own_data(run).test, run.tokenizer, limit=900)
    assert row["bits_per_byte"] == pytest.approx(score.bits_per_byte, rel=1e-6)


@pytest.mark.parametrize("kind", ["different", "alike"])
def test_memory_is_that_of_the_layers_that_have_one(
    cli: Cli, runs: dict[str, Path], kind: str
) -> None:
    rows = evaluated(cli, runs[kind], "--memory", 0, 96)
    assert [row["memory"] for row in rows] == [0, 96]
    model = longspan.load(runs[kind]).model
    for length in (0, 96):
        config = model.remembering(length).config
        assert {memory.length for memory in config.memories} == {length}
        patterns = {layer.pattern for mixer, layer, _ in config.each_layer() if mixer.slots}
        assert patterns == {longspan.Segments(32, length)}
        assert config.mixers() == model.config.mixers()
    said = " ".join(cli("evaluate", runs[kind], "--memory", 0, "--limit", 99).out.split())
    assert "beside the memory there is the state of lstm" in said


def test_what_has_no_meaning_is_said_in_a_line(cli: Cli, runs: dict[str, Path]) -> None:
    asked = ("evaluate", runs["pure"], "--threads", 1)
    for option in ("--memory", "--segment"):
        said = refused(cli(*asked, option, 8))
        assert "no layer takes a memory or a pattern, whose length could be another" in said
        assert "'lstm' carries a state of its own" in said
    assert "give it a length with --segment" in refused(cli(*asked, "--sliding"))


@pytest.mark.parametrize(
    ("kind", "name"), [("different", "memory 32 and 64"), ("alike", "memory 32")]
)
def test_segments_may_be_others(cli: Cli, runs: dict[str, Path], kind: str, name: str) -> None:
    (row,) = evaluated(cli, runs[kind], "--segment", 16)
    assert row["name"] == name
    (trained,) = evaluated(cli, runs[kind])
    assert row["bits_per_byte"] != trained["bits_per_byte"]


def test_a_window_over_a_recurrent_model_starts_from_nothing(
    cli: Cli, runs: dict[str, Path]
) -> None:
    arguments = ("--sliding", "--stride", 32, "--segment", 32)
    (row,) = evaluated(cli, runs["pure"], *arguments)
    (carried,) = evaluated(cli, runs["pure"])
    assert row["name"] == "sliding window, stride 32"
    assert row["bits_per_byte"] != carried["bits_per_byte"]


# -- report, cost, check --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names", "carried"),
    [
        (
            "different",
            ["no memory", "memory 32 and 64"],
            "carried from segment to segment by memory 'recent', mixer 'lstm', mixer 'convolution'",
        ),
        (
            "pure",
            ["no memory", "a state of its own"],
            "carried from segment to segment by mixer 'lstm'",
        ),
        (
            "alike",
            ["no memory", "memory 32, as trained", "memory 128, 4x the trained"],
            "memory carried from segment to segment",
        ),
    ],
)
def test_a_report_measures_what_there_is(
    cli: Cli, runs: dict[str, Path], kind: str, names: list[str], carried: str, tmp_path: Path
) -> None:
    run = shutil.copytree(runs[kind], tmp_path / "run")
    asked = ("report", run, "--limit", 400, "--stride", 16, "--sample", 20, "--threads", 1)
    result = cli(*asked)
    assert result.status == 0, result.err
    facts = json.loads((run / "report.json").read_text("utf-8"))
    rows = facts["rows"]
    assert [row["name"] for row in rows][: len(names) + 1] == [
        *names,
        "sliding window of 32, stride 16",
    ]
    assert rows[1]["note"] == carried
    none, kept = (row["bits_per_byte"] for row in rows[:2])
    assert rows[1]["against_none"] == pytest.approx(kept / none - 1)
    page = (run / "report.html").read_text("utf-8")
    varied = kind == "alike"
    assert bool(facts["curve"]) == varied
    assert ('id="memory"' in page) == varied
    assert (facts["run"]["memory"] == 32) == varied
    if varied:
        note = "attention starts each segment from nothing; lstm carries on"
        assert rows[0]["note"].startswith(note)
    else:
        assert "With what it carries from segment to segment it needs" in page
        # the command says the same again
        (again,) = lines(cli(*rows[0]["command"].split()[1:], "--json").out.encode())
        assert again["bits_per_byte"] == pytest.approx(none, rel=1e-6)


@every
def test_cost_counts_every_layer(cli: Cli, runs: dict[str, Path], kind: str) -> None:
    run = longspan.load(runs[kind])
    text = cli("cost", runs[kind]).out
    assert f"{sum(p.numel() for p in run.model.parameters()):,}" in text
    _, state = run.model(torch.zeros(1, 256, dtype=torch.long))
    assert f"state of a stream: {state.nbytes:,} bytes" in text


def test_check_finds_what_a_layer_has_no_place_for(cli: Cli, tmp_path: Path) -> None:
    stack = [{"mixer": "lstm", "memory": {"name": "recent", "tokens": 3}}, {"mixer": "lsmt"}]
    said = refused(cli("check", "tiny", "--model.stack", json.dumps(stack)))
    assert "model.stack[1].mixer" in said
    assert "did you mean 'lstm'" in said
    said = refused(cli("check", "tiny", "--model.stack", json.dumps(stack[:1])))
    assert "[S1] layer 0: mixer='lstm' has a state of its own; memory='recent' has no place" in said
    # a pure stack is told which slots nobody takes, and where its calls' length is said
    said = refused(cli("check", "tiny", "--model.mixer", "gru"))
    for slot in ("position='xl'", "pattern='segments'", "memory='recent'"):
        assert f"[S3] no layer takes {slot}" in said
    assert "[T1] no layer has segments of its own" in said
    assert cli("check", "lstm").out == "lstm: no problems\n"
    assert cli("check", "mixed").out == "mixed: no problems\n"


def test_compare_lays_them_side_by_side(cli: Cli, runs: dict[str, Path]) -> None:
    text = cli("compare", *runs.values()).out
    assert "model.stack" in text
    assert "hidden" in text
