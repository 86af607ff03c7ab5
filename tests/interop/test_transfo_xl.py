"""TransfoXL checkpoints answer here as they answered in the last release that had the model.

The oracles were made by transformers 4.35.2 in float64 (`tests/oracles/make_transfo_xl.py`); each
is imported through a real run, as a user would.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import longspan
from longspan import ConfigError, Decoder, Recent, State, Window
from longspan.errors import CheckpointError
from longspan.slots import Places
from longspan.state import EMPTY
from tests.tiny import Result

HERE = Path(__file__).parents[2]
FOLDERS = [HERE / "tests/oracles/transfo_xl", HERE.parent / "shared/oracles/transfo_xl"]
ORACLES = {
    f"{folder.parts[-3]}-{oracle.name}": oracle
    for folder in FOLDERS
    if folder.is_dir()
    for oracle in sorted(folder.iterdir())
}
SMALL = FOLDERS[0] / "untied"
every = pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)
EXACT = {"atol": 1e-9, "rtol": 0.0}


@dataclass(frozen=True)
class Segment:
    """What we answer to one segment of an oracle.

    Attributes:
        log_probs: (B, T, V).
        hidden: (B, T, C), of the last layer.
        attention: (B, H, T, S), of the first layer.
        memory: (P, B, C) a layer, oldest slot first; slots that hold nothing left out.
    """

    log_probs: Tensor
    hidden: Tensor
    attention: Tensor
    memory: list[Tensor]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[Segment]]:
    """Our answers to an oracle, segment after segment; computed once."""

    @cache
    def compute(oracle: Path) -> list[Segment]:
        about = json.loads((oracle / "about.json").read_text())
        to = tmp_path_factory.mktemp("runs") / oracle.name
        longspan.import_run(oracle, to, segment=about["segment_length"])
        model = longspan.load(to, dtype="float64").model
        if about.get("initial_memory", "").startswith("empty"):
            tokens = model.config.pattern.reach
            memory = Recent(tokens or 0, store="hidden")
            model = model.reshaped(pattern=model.config.pattern, memory=memory)
        ids = load_file(oracle / "cases.safetensors")["input_ids"]
        state = None
        segments = []
        for piece in ids.split(about["segment_length"], 1):
            segment, state = answer(model, piece, state)
            segments.append(segment)
        return segments

    return compute


@torch.no_grad()
def answer(model: Decoder, tokens: Tensor, state: State | None) -> tuple[Segment, State]:
    state = state or model.start(len(tokens))
    first = next(model.blocks()).mixer
    places, _ = Places.of(state.next, tokens.shape[1])
    pairs = first.pairs(state.layers[0], places)
    attention = first.weights(model.embedding(tokens), state.layers[0], places, pairs)
    hidden, _ = model.hidden(tokens, state)
    logits, state = model(tokens, state)
    memory = []
    for layer in state.layers:
        held = layer.tensors()
        # one real token more or less in a row would be a bug of its own: rows are of one length
        filled = int((held["pos"][0] != EMPTY).sum())
        memory.append(held["x"][:, held["x"].shape[1] - filled :].transpose(0, 1))
    return Segment(logits.log_softmax(-1), hidden, attention, memory), state


def test_the_oracles_are_there() -> None:
    """One for each option that the release has and we keep."""
    names = {folder.name for folder in FOLDERS[0].iterdir()}
    assert {
        "untied",
        "shared_uv",
        "clamp",
        "same_length",
        "same_length_short",
        "pre_norm",
        "head_width",
        "adaptive_div1",
        "adaptive_div1_small",
        "adaptive_div4",
        "tied_projections",
        "untied_projections",
        "untied_weights",
        "no_memory",
        "small_embedding",
        "empty_start",
        "combined",
    } <= names


@pytest.mark.parametrize("name", ["plain", "adaptive"])
def test_the_oracles_of_the_projects_issue_are_there(name: str) -> None:
    if not FOLDERS[1].is_dir():
        pytest.skip(f"{FOLDERS[1]} is not on this machine")
    assert FOLDERS[1] / name in ORACLES.values()


@every
def test_log_probabilities(oracle: Path, answers: Callable[[Path], list[Segment]]) -> None:
    cases = load_file(oracle / "cases.safetensors")
    segments = answers(oracle)
    assert f"log_probs.{len(segments)}" not in cases
    for number, segment in enumerate(segments):
        torch.testing.assert_close(segment.log_probs, cases[f"log_probs.{number}"], **EXACT)


@every
def test_hidden_states(oracle: Path, answers: Callable[[Path], list[Segment]]) -> None:
    cases = load_file(oracle / "cases.safetensors")
    for number, segment in enumerate(answers(oracle)):
        torch.testing.assert_close(segment.hidden, cases[f"hidden.{number}"], **EXACT)


@every
def test_attention(oracle: Path, answers: Callable[[Path], list[Segment]]) -> None:
    """Keys that we leave out because no query of the segment may see them have no weight there."""
    cases = load_file(oracle / "cases.safetensors")
    for number, segment in enumerate(answers(oracle)):
        expected = cases[f"attention0.{number}"]
        missing = expected.shape[-1] - segment.attention.shape[-1]
        assert missing >= 0
        assert not expected[..., :missing].any()
        torch.testing.assert_close(segment.attention, expected[..., missing:], **EXACT)


@every
def test_memory_of_every_layer(oracle: Path, answers: Callable[[Path], list[Segment]]) -> None:
    cases = load_file(oracle / "cases.safetensors")
    model = json.loads((oracle / "config.json").read_text())
    layers = model["n_layer"]
    for number, segment in enumerate(answers(oracle)):
        expected = [case for case in cases if case.startswith(f"memory.{number}.")]
        assert len(expected) == (layers if model["mem_len"] else 0)
        for layer in range(len(expected)):
            theirs = cases[f"memory.{number}.{layer}"]
            ours = segment.memory[layer]
            # in evaluation we also keep what an unfinished segment would need
            assert len(ours) >= len(theirs)
            torch.testing.assert_close(ours[len(ours) - len(theirs) :], theirs, **EXACT)


@every
@torch.no_grad()
def test_text_may_be_cut_anywhere(oracle: Path, tmp_path: Path) -> None:
    """The release's answers depend on how its input is cut; ours do not."""
    about = json.loads((oracle / "about.json").read_text())
    longspan.import_run(oracle, tmp_path / "run", segment=about["segment_length"])
    model = longspan.load(tmp_path / "run", dtype="float64").model
    ids = load_file(oracle / "cases.safetensors")["input_ids"]
    whole, _ = model(ids)
    state, parts = None, []
    for piece in ids.split(7, 1):
        logits, state = model(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)


def test_frequencies_are_taken_as_stored(tmp_path: Path) -> None:
    """They are float32 numbers: rounded ones, and another position than our own."""
    longspan.import_run(SMALL, tmp_path / "run", segment=6)
    order = next(longspan.load(tmp_path / "run").model.blocks()).mixer.order
    stored = load_file(SMALL / "model.safetensors")["transformer.pos_emb.inv_freq"]
    assert torch.equal(order.frequency, stored.double())
    exact = 10000.0 ** -(torch.arange(0, 16, 2).double() / 16)
    assert 0 < (order.frequency - exact).abs().max() < 1e-7


# The run.


def changed(folder: Path, **settings: Any) -> Path:
    """A copy of a small oracle with other settings in its config.json."""
    shutil.copytree(SMALL, folder)
    config = json.loads((folder / "config.json").read_text())
    for name, value in settings.items():
        config[name] = value
        if value is None:
            del config[name]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_run_is_made(tmp_path: Path) -> None:
    assert longspan.import_run(SMALL, tmp_path / "run", segment=6) == tmp_path / "run"
    run = longspan.load(tmp_path / "run")
    assert run.model.config.pattern == longspan.Segments(6, 10)
    assert run.model.config.memory == Recent(10, init="zeros")
    assert not run.model.training
    assert run.tokenizer.kind == "ids"
    assert run.tokenizer.size == 60


@pytest.mark.parametrize(("settings", "segment"), [({}, 128), ({"tgt_len": 32}, 32)])
def test_the_segment_is_the_configs_or_the_authors(
    tmp_path: Path, settings: dict, segment: int
) -> None:
    longspan.import_run(changed(tmp_path / "hf", **settings), tmp_path / "run")
    assert longspan.load(tmp_path / "run").model.config.pattern.segment == segment


def test_same_length_is_a_window(tmp_path: Path) -> None:
    longspan.import_run(FOLDERS[0] / "same_length", tmp_path / "run")
    assert longspan.load(tmp_path / "run").model.config.pattern == Window(8)


def test_words_are_read_from_vocab_txt(tmp_path: Path) -> None:
    source = changed(tmp_path / "hf")
    words = ["<eos>", "<unk>", "the", "cat", *(f"w{i}" for i in range(56))]
    (source / "vocab.txt").write_text("".join(f"{word} 17\n" for word in words))
    longspan.import_run(source, tmp_path / "run")
    run = longspan.load(tmp_path / "run")
    assert run.tokenizer.kind == "words"
    assert run.tokenizer.encode(b"the cat sat\n").tolist() == [2, 3, 1, 0]


# What cannot be imported. Each time nothing is left behind.


def refused(source: Path, message: str, *, error: type[Exception] = CheckpointError) -> None:
    to = source.parent / "never"
    with pytest.raises(error, match=message):
        longspan.import_run(source, to)
    assert not to.exists()


def test_a_folder_without_files(tmp_path: Path) -> None:
    refused(tmp_path / "absent", r"absent/config\.json cannot be read .*name a Hugging Face folder")
    folder = changed(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    refused(folder, r"model\.safetensors is missing")


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    folder = changed(tmp_path / "hf")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"pytorch_model\.bin, a pickle, which is never read; save them with")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; so far only 'transfo-xl' can be imported"),
        ({"model_type": None}, "model_type is None"),
        ({"n_layer": None, "mem_len": None}, r"config\.json lacks n_layer, mem_len"),
        ({"attn_type": 1}, "attn_type=1 is not Transformer-XL's attention"),
        (
            {"same_length": True, "mem_len": 0},
            "same_length with mem_len 0 leaves a query no key at all; .*attends to the future",
        ),
        ({"n_layer": "two"}, r"config\.json: n_layer must be 1 or more, not 'two'"),
        ({"mem_len": -1}, r"config\.json: mem_len must be 0 or more, not -1"),
        ({"cutoffs": 5}, r"config\.json: cutoffs must be a list of whole numbers above 0, not 5"),
        ({"clamp_len": "far"}, r"clamp_len must be a whole number, not 'far'"),
        ({"d_inner": 1.5, "n_head": True}, "n_head must be .* not True; d_inner must be .* not 1"),
        ({"vocab_size": 61}, r"word_emb\.emb_layers\.0\.weight is \(60, 16\), not \(61, 16\)"),
        ({"n_layer": 1}, r"transformer\.layers\.1\.dec_attn\.layer_norm\.bias is unknown"),
        ({"n_layer": 3}, r"transformer\.layers\.2\.dec_attn\.qkv_net\.weight is missing"),
        ({"d_head": 9}, r"r_w_bias is \(2, 8\), not \(2, 9\)"),
    ],
)
def test_a_config_that_cannot_be(tmp_path: Path, settings: dict, message: str) -> None:
    refused(changed(tmp_path / "hf", **settings), message)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    folder = changed(tmp_path / "hf")
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(folder, r"config\.json")


def test_a_missing_tensor_is_named_and_so_are_all_others(tmp_path: Path) -> None:
    folder = changed(tmp_path / "hf")
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.layers.1.dec_attn.o_net.weight"], tensors["crit.out_layers.0.bias"]
    save_file(tensors, folder / "model.safetensors")
    refused(
        folder,
        r"does not fit its config\.json: crit\.out_layers\.0\.bias is missing; "
        r"transformer\.layers\.1\.dec_attn\.o_net\.weight is missing",
    )


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    folder = changed(tmp_path / "hf")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    refused(folder, r"model\.safetensors is missing or damaged")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the\ncat\n<eos>\n", "vocabulary with a word a line, <eos> and <unk> among them"),
        ("<eos>\n<unk>\nthe\n", r"vocab\.txt has 3 words, config\.json says 60"),
        ("<eos>\n\n<unk>\n", "vocabulary with a word a line"),
    ],
)
def test_a_vocabulary_that_does_not_fit(tmp_path: Path, text: str, message: str) -> None:
    folder = changed(tmp_path / "hf")
    (folder / "vocab.txt").write_text(text)
    refused(folder, message)


def test_a_segment_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pattern\.length must be 1 or more, not 0"):
        longspan.import_run(SMALL, tmp_path / "run", segment=0)


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    longspan.import_run(SMALL, tmp_path / "run", segment=6)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="run holds a run already; name another folder"):
        longspan.import_run(FOLDERS[0] / "clamp", tmp_path / "run")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_every_verb_takes_it(tmp_path: Path, cli: Callable[..., Result]) -> None:
    folder, numbers = tmp_path / "run", tmp_path / "numbers.txt"
    numbers.write_text("1 2 3 4 5 6 7 8 9 10 11 12\n" * 20)
    assert cli("import", SMALL, "--to", folder).status == 0
    assert cli("check", folder).out.startswith(f"{folder}: no problems; it was imported")
    assert "state of a stream" in cli("cost", folder).out
    assert cli("evaluate", folder, "--data", numbers, "--memory", 0, 4).status == 0
    assert len(cli("stream", folder, numbers).out.splitlines()) == 240
    drawn = cli("generate", folder, "--prompt", "1 2 3", "--max-tokens", 4, "--seed", 1)
    assert drawn.out.startswith("1 2 3 ")
    assert "the recipes are the same" in cli("compare", folder, folder).out
    further = ("--from", folder, "--run", tmp_path / "further", "--data.path", numbers)
    quick = ("--train.steps", 2, "--train.batch", 1, "--data.documents", "false")
    held = ("--data.valid", 0, "--data.test", 0, "--data.tokenizer", "ids", "--train.threads", 1)
    assert cli("train", folder, *further, *quick, *held).status == 0
