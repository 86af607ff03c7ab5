"""Every verb once, and what each says to bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import longspan
from longspan.cli import VERBS
from longspan.comparing import Score
from longspan.compat import agreeing, examples
from longspan.data import read
from longspan.measure.crossover import Duel
from longspan.mixing import Mixer
from longspan.positions.xl import XL
from longspan.slots import Kernel, Memory, Pattern, Position
from longspan.training.recipe import recipe_names, recipe_text
from longspan.training.run import own_data
from tests.tiny import Result, contents, lines, refused, run, settings, train_tiny, words

Cli = Callable[..., Result]

# -- the command line itself ----------------------------------------------------------------------


def test_help_does_not_import_torch() -> None:
    script = (
        "import sys; sys.argv = ['longspan', *{words}]\n"
        "from longspan.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {{'torch', 'numpy', 'tokenizers', 'matplotlib'}} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    for arguments in ([], ["--help"], ["--version"]):
        code = script.format(words=arguments)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_help_names_every_verb() -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb, what in VERBS.items():
        assert verb in done.stdout.decode()
        assert what.split()[0] in done.stdout.decode()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(cli: Cli, verb: str) -> None:
    result = cli(verb, "--help")
    assert result.status == 0
    assert f"longspan {verb}" in result.out


@pytest.mark.parametrize("verb", ["train", "evaluate", "generate", "stream", "report"])
def test_verbs_that_compute_say_where(cli: Cli, verb: str) -> None:
    text = cli(verb, "--help").out
    for option in ("--device", "--dtype", "--threads"):
        assert option in text


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version").out.strip() == longspan.__version__


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["train"], ["evaluate", "r", "--dtype", "x"]]
)
def test_a_call_that_cannot_be_read_ends_with_status_2(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.status == 2
    assert "Error" in result.out + result.err
    assert "Traceback" not in result.out + result.err


def test_a_process_ends_with_one_line_and_status_2(tmp_path: Path) -> None:
    done = run("evaluate", tmp_path / "nothing")
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert "does not exist; `longspan train`" in refused(done)


@pytest.mark.parametrize("verb", ["evaluate", "generate", "stream", "report", "compare"])
def test_what_is_no_run_is_refused(cli: Cli, tmp_path: Path, verb: str) -> None:
    assert "is no run (it has no run.yaml)" in refused(cli(verb, tmp_path))
    (tmp_path / "run.yaml").write_text("model: [")
    assert "run.yaml" in refused(cli(verb, tmp_path))


def test_devices_and_threads_that_are_not_there_are_refused(cli: Cli, trained: Path) -> None:
    assert "device 'cpuu' is unknown, did you mean 'cpu'" in refused(
        cli("evaluate", trained, "--device", "cpuu")
    )
    assert "device 'mps' is unknown" in refused(cli("evaluate", trained, "--device", "mps"))
    assert "threads must be 0" in refused(cli("evaluate", trained, "--threads", -1))
    if not torch.cuda.is_available():
        assert "'cuda' is not to be had" in refused(cli("evaluate", trained, "--device", "cuda"))


# -- list, new, check, cost -----------------------------------------------------------------------


def test_list_names_every_component_and_recipe(cli: Cli) -> None:
    text = cli("list").out
    names = ["xl", "rotary", "segments", "recent", "sdpa", "bytes", "stdlib", *recipe_names()]
    for name in names:
        assert f"\n{name} " in text
    assert "length, memory" in text


def test_new_writes_a_recipe_and_never_over_a_file(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("new", "tiny").out == "tiny.yaml\n"
    assert (tmp_path / "tiny.yaml").read_text() == recipe_text("tiny")
    (tmp_path / "tiny.yaml").write_text("mine")
    assert "tiny.yaml exists already" in refused(cli("new", "tiny"))
    assert (tmp_path / "tiny.yaml").read_text() == "mine"
    assert cli("new", "demo", "other.yaml").out == "other.yaml\n"
    assert "cannot be written" in refused(cli("new", "demo", tmp_path / "no" / "folder.yaml"))
    assert "did you mean 'demo'" in refused(cli("new", "dmeo"))


class NoTensor(TorchDispatchMode):
    """Fails at the first operation on tensors, on whatever device."""

    def __torch_dispatch__(self, func: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"a tensor was made by {func}")


def test_check_makes_no_tensor(cli: Cli) -> None:
    with pytest.raises(AssertionError, match="a tensor was made"), NoTensor():
        torch.zeros(3)
    with NoTensor():
        assert cli("check", "xl-small").out == "xl-small: no problems\n"
        said = refused(cli("check", "tiny", "--model.memory.tokens", 8, "--train.stepz", 3))
    assert said.startswith("tiny: 2 problems\n  train.stepz is unknown, did you mean 'steps'?")
    assert "\n  [M2] " in said


def test_check_shows_every_setting(cli: Cli, tmp_path: Path) -> None:
    text = cli("check", "tiny", "--show", "--model.width", 48).out
    assert "  width: 48\n" in text
    assert "weight_decay: 0.1" in text
    # which is a recipe itself
    (tmp_path / "all.yaml").write_text(text)
    assert cli("check", tmp_path / "all.yaml", "--show").out == text


def test_cost_counts_what_is_there(cli: Cli, trained: Path) -> None:
    run = longspan.load(trained)
    count = sum(p.numel() for p in run.model.parameters())
    text = cli("cost", trained).out
    assert f"{count:,}" in text
    for part in ("embedding", "projections", "scores", "feed-forward", "head", "all"):
        assert part in text
    assert "state of a stream" in text


def test_cost_measures_and_warns_below_the_crossover(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = ((16, 1.0, 2.0), (64, 4.0, 2.0))
    monkeypatch.setattr(
        "longspan.cli.cost.duels", lambda *a, **k: [Duel((0, 1), "some", False, times)]
    )
    text = cli("cost", "tiny", "--measure").out
    assert "this layer is the faster one from about 32 tokens on" in text
    # the recipe's calls have 32 tokens
    assert "warning" not in text
    times = ((32, 1.0, 2.0), (64, 2.0, 3.0))
    text = cli("cost", "tiny", "--measure").out
    assert "plain attention is the faster one up to 64 tokens" in text
    assert "warning: training gives it 32 tokens a call" in text


def test_cost_asks_for_what_only_the_data_tell(cli: Cli) -> None:
    said = refused(cli("cost", "tiny", "--data.tokenizer", "words"))
    assert "say how many with --vocabulary" in said
    asked = ("cost", "tiny", "--data.tokenizer", "words", "--vocabulary", 1000)
    assert cli(*asked).status == 0


def making(**slots: Any) -> str:
    """The rules that are against a layer of these slots; against a model, if a memory wraps it."""
    memory, pattern = slots.get("memory"), slots.get("pattern")
    try:
        if memory is not None and memory.attaches == "tokens" and pattern.causal:
            sizes = {"width": 8, "layers": 1, "heads": 2, "feed_forward": 8}
            longspan.Decoder(longspan.DecoderConfig(**sizes, **slots), 5)
        else:
            longspan.Attention(8, 2, **slots)
    except longspan.IncompatibleConfig as error:
        # that it is no layer's is not what the table is about
        return ", ".join(c.rule for c in error.conflicts if c.rule != "M5")
    return "yes"


def test_the_matrix_says_what_goes_with_what(cli: Cli) -> None:
    """Each cell is what making such a layer does."""
    tables: dict[str, dict[str, list[str]]] = {}
    title = ""
    for line in cli("list", "--matrix").out.splitlines():
        cells = [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        if len(cells) > 1:
            tables[title].setdefault(cells[0], cells[1:])
        elif " by " in line:
            title = line.strip()
            tables[title] = {}
    kinds = {kind.kind: kind for kind in (Pattern, Memory, Position, Score, Kernel)}
    for title in list(tables)[:-1]:
        row, column = title.split(" by ")
        rows, columns = examples(kinds[row]), examples(kinds[column])
        assert tables[title][row] == [member.name for member in columns]
        for one in rows:
            for other, cell in zip(columns, tables[title][one.name], strict=True):
                slots = {row: one, column: other}
                if column == "memory":
                    slots = dict(zip(slots, agreeing(one, other), strict=True))
                elif slots.get("position", XL()).enters == "input":
                    # it is none of a layer's
                    del slots["position"]
                exact = {} if column == "memory" else {"exact": False}
                assert cell == making(**slots, **exact), slots
    assert tables["pattern by kernel"]["strided"] == ["yes", "yes", "yes", "K2"]
    assert tables["position by kernel"]["shaw"] == ["yes", "yes", "yes", "K1"]
    rows = tables["mixer by form"]
    assert rows["mixer"] == ["causal", "both ways", "the four slots"]
    for name, mixer in Mixer.all().items():
        traits = (mixer.causal, mixer.bidirectional, mixer.slots)
        assert rows[name] == ["yes" if trait else "no" for trait in traits]


# -- evaluate -------------------------------------------------------------------------------------

EVALUATE = ("evaluate", "--threads", 1)


def test_evaluate_gives_a_row_for_each_memory(cli: Cli, trained: Path, corpus: Path) -> None:
    file = corpus / "3.txt"
    asked = (*EVALUATE, trained, "--data", file, "--memory", 0, 32, 128)
    rows = lines(cli(*asked, "--json").out.encode())
    assert [row["memory"] for row in rows] == [0, 32, 128]
    run = longspan.load(trained)
    data = read(str(file), run.tokenizer)
    for row in rows:
        score = longspan.evaluate(run.model.remembering(row["memory"]), data, run.tokenizer)
        assert row["bits_per_byte"] == pytest.approx(score.bits_per_byte, rel=1e-6)
        assert row["bytes"] == row["tokens"] == file.stat().st_size
        assert row["documents"] == 1
        assert row["low"] <= row["bits_per_byte"] <= row["high"]
        assert "byte_perplexity" not in row
    table = cli(*asked).out
    for row in rows:
        assert f"memory {row['memory']} " in table
        assert f"{row['bits_per_byte']:.4f}" in table


def test_evaluate_leaves_a_memory_of_no_length_out(cli: Cli, tmp_path: Path, corpus: Path) -> None:
    slots = {"pattern": {"name": "segments", "length": 16, "memory": 0}, "memory": "infini"}
    changes = {f"model.{slot}": value for slot, value in slots.items()} | {"train.steps": 2}
    run = train_tiny(tmp_path / "run", corpus, **changes)
    asked = (*EVALUATE, run, "--data", corpus / "3.txt", "--limit", 200, "--json")
    (full,) = lines(cli(*asked).out.encode())
    (other,) = lines(cli(*asked, "--segment", 8).out.encode())
    (without,) = lines(cli(*asked, "--memory", 0).out.encode())
    assert (full["name"], full["memory"]) == (other["name"], other["memory"])
    assert (full["name"], full["memory"]) == ("memory infini", None)
    assert (without["name"], without["memory"]) == ("memory 0", 0)
    assert len({row["bits_per_byte"] for row in (full, other, without)}) == 3
    said = refused(cli(*asked, "--memory", 64))
    assert "'infini' cannot be evaluated with another length; evaluate it" in said


def test_evaluate_takes_the_runs_own_test_data(cli: Cli, trained: Path) -> None:
    (row,) = lines(cli(*EVALUATE, trained, "--json", "--limit", 700).out.encode())
    run = longspan.load(trained)
    score = longspan.evaluate(run.model, own_data(run).test, run.tokenizer, limit=700)
    assert row["bits_per_byte"] == pytest.approx(score.bits_per_byte, rel=1e-6)
    assert row["tokens"] == 700
    assert row["memory"] == 32


def test_evaluate_slides_a_window(cli: Cli, trained: Path, corpus: Path) -> None:
    asked = (*EVALUATE, trained, "--data", corpus / "3.txt", "--limit", 300, "--json")
    (row,) = lines(cli(*asked, "--sliding", "--stride", 8).out.encode())
    run = longspan.load(trained)
    data = read(str(corpus / "3.txt"), run.tokenizer)
    score = longspan.sliding(run.model, data, run.tokenizer, stride=8, limit=300)
    assert row["bits_per_byte"] == pytest.approx(score.bits_per_byte, rel=1e-6)
    assert row["name"] == "sliding window, stride 8"
    assert row["memory"] is None
    (wider,) = lines(cli(*asked, "--sliding", "--stride", 8, "--segment", 64).out.encode())
    assert wider["bits_per_byte"] != row["bits_per_byte"]


def test_evaluate_counts_perplexity_where_a_token_is_no_byte(
    cli: Cli, trained_bpe: Path, corpus: Path
) -> None:
    asked = (*EVALUATE, trained_bpe, "--data", corpus / "3.txt", "--limit", 300)
    (row,) = lines(cli(*asked, "--json").out.encode())
    bits = row["bits_per_byte"] * row["bytes"] / row["tokens"]
    assert row["token_perplexity"] == pytest.approx(2**bits, rel=1e-6)
    assert "token perplexity" in " ".join(cli(*asked).out.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "no such place"], "no such place: there is no such file or folder"),
        (["--memory", -3], "memory must be 0 or more, not -3"),
        (["--segment", 0], "length must be 1 or more, not 0"),
        (["--batch", 0], "batch must be 1 or more, not 0"),
        (["--limit", -1], "limit must be 0 (all) or more, not -1"),
        (["--sliding", "--stride", 0], "--stride must be between 1 and the window of 32, not 0"),
        (["--sliding", "--stride", 33], "--stride must be between 1 and the window of 32, not 33"),
        (["--sliding", "--segment", 1], "give it a length with --segment"),
        (["--sliding", "--memory", 3], "--sliding has no memory"),
    ],
)
def test_evaluate_refuses(cli: Cli, trained: Path, arguments: list[Any], said: str) -> None:
    assert said in refused(cli(*EVALUATE, trained, *arguments))


def test_evaluate_refuses_data_with_nothing_in_them(
    cli: Cli, trained: Path, trained_bpe: Path, tmp_path: Path
) -> None:
    (tmp_path / "nothing").touch()
    said = refused(cli(*EVALUATE, trained, "--data", tmp_path / "nothing"))
    assert "the file is empty" in said
    (tmp_path / "noise").write_bytes(b"abc\xff\xfe")
    said = refused(cli(*EVALUATE, trained_bpe, "--data", tmp_path / "noise"))
    assert "byte 3 (0xff) is not UTF-8" in said


# -- compare and report ---------------------------------------------------------------------------


def test_compare_lays_runs_side_by_side(
    cli: Cli, trained: Path, tmp_path: Path, corpus: Path
) -> None:
    other = train_tiny(tmp_path / "other", corpus, **{"train.steps": 4, "model.layers": 1})
    text = " ".join(cli("compare", trained, other).out.split())
    assert "│ model.layers │ 2 │ 1 │" in text
    assert "│ train.steps │ 60 │ 4 │" in text
    assert "│ steps │ 60 │ 4 │" in text
    assert "model.width" not in text
    assert "the recipes are the same" in cli("compare", trained, trained).out
    assert "name at least one run" in refused(cli("compare"))


def test_report_writes_a_page_and_its_numbers(cli: Cli, trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    asked = ("report", folder, "--limit", 400, "--stride", 16, "--sample", 20, "--threads", 1)
    result = cli(*asked)
    assert result.status == 0
    assert result.out.rstrip().endswith(str(folder / "report.html"))
    page = (folder / "report.html").read_text("utf-8")
    assert page.lstrip().lower().startswith("<!doctype html")
    facts = json.loads((folder / "report.json").read_text("utf-8"))
    assert [row["name"] for row in facts["rows"]][:2] == ["no memory", "memory 32, as trained"]
    assert facts["run"]["steps"] == 60
    drawn = [token for token in facts["sample"]["tokens"] if not token["prompt"]]
    assert 0 < len(drawn) <= 20
    assert cli(*asked, "--to", tmp_path / "page.html").status == 0
    assert (tmp_path / "page.json").exists()
    said = refused(cli(*asked, "--to", tmp_path / "no" / "page.html"))
    assert "cannot be written" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sample", -1], "--sample must be 0 or more, not -1"),
        (["--limit", -1, "--stride", 0], "--stride must be 1 or more, not 0"),
        (["--stride", 4000], "--stride must be between 1 and the window of 32, not 4000"),
    ],
)
def test_report_refuses_before_it_measures(
    cli: Cli, trained: Path, tmp_path: Path, arguments: list[object], said: str
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    assert said in refused(cli("report", folder, *arguments))
    assert not (folder / "report.html").exists()


def test_report_of_a_pattern_without_segments_slides_what_training_read(
    cli: Cli, tmp_path: Path, corpus: Path
) -> None:
    window = {"model.pattern": {"name": "window", "width": 33}, "train.segment": 16}
    folder = train_tiny(tmp_path / "run", corpus, **{"train.steps": 2}, **window)
    assert cli("report", folder, "--limit", 400, "--stride", 8, "--sample", 5).status == 0
    facts = json.loads((folder / "report.json").read_text("utf-8"))
    (row,) = (row for row in facts["rows"] if row["kind"] == "sliding")
    assert row["name"] == "sliding window of 16, stride 8"
    assert "--sliding --stride 8 --segment 16 --limit 400" in row["command"]
    assert cli(*row["command"].split()[1:]).status == 0


def test_report_of_a_run_that_was_killed_says_how_to_go_on(
    cli: Cli, trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "speed.json").unlink()
    said = refused(cli("report", folder))
    assert f"`longspan train {folder} --resume` goes on" in said


# -- train ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tny"], "unknown recipe 'tny', did you mean 'tiny'?"),
        (["tiny", "--model.widht", "3"], "model.widht is unknown, did you mean 'width'?"),
        (["tiny", "--steps", "3"], "--steps is no option and no setting"),
        (["tiny", "--train.steps"], "--train.steps needs a value"),
        (["tiny", "--model.memory.tokens", "8"], "[M2]"),
        (["tiny", "--data.path", "no such place"], "there is no such file or folder"),
        (["tiny", "--from", "no such run"], "no such run does not exist"),
        (["tiny", "--device", "cpuu"], "device 'cpuu' is unknown"),
    ],
)
def test_train_refuses_and_writes_nothing(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    corpus: Path,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = arguments
    data = [] if "--data.path" in rest else ["--data.path", str(corpus)]
    assert said in refused(cli("train", name, *data, *rest))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "the file is empty"),
        (b"a few bytes", "fewer than a segment of 32"),
        (b"some more bytes " * 5, "use more data, a batch of at most"),
    ],
)
def test_train_refuses_data_that_are_too_short(
    cli: Cli, tmp_path: Path, text: bytes, said: str
) -> None:
    (tmp_path / "data").write_bytes(text)
    recipe = words(settings(tmp_path / "run", tmp_path / "data"))
    assert said in refused(cli("train", "tiny", *recipe))
    assert not (tmp_path / "run").exists()


def test_train_tells_how_it_goes(cli: Cli, tmp_path: Path, corpus: Path) -> None:
    recipe = words(settings(tmp_path / "run", corpus, **{"train.steps": 40, "evaluate.every": 10}))
    result = cli("train", "tiny", *recipe)
    assert result.out == f"{tmp_path / 'run'}\n"
    told = result.err.splitlines()
    assert told[0].endswith("parameters, 4 lanes of 32 tokens, float32")
    assert told[1].startswith("step 2/40  ")
    assert "bits/token" in told[1]
    assert "held out" in told[-1]


def test_a_second_training_leaves_the_first_one(cli: Cli, trained: Path, corpus: Path) -> None:
    before = contents(trained)
    said = refused(cli("train", "tiny", *words(settings(trained, corpus))))
    assert "holds a run already; go on with --resume, or choose another folder with --run" in said
    assert contents(trained) == before
