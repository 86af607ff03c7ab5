"""Hugging Face's causal models: losses are their own, and only they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longspan.data import read as read_data
from longspan.data.tokenizers.ids import IdCodec
from longspan.errors import CheckpointError, ConfigError, DataError
from longspan.interop.causal import CausalPredictor, open_causal
from longspan.measure.reach.contexts import losses
from longspan.measure.reach.influence import gradients
from longspan.measure.reach.looking import looking
from longspan.measure.reach.predictor import Seen
from longspan.measure.reach.reading import read
from longspan.measure.reach.text import RUN, Text
from longspan.measure.reach.worth import worth

transformers = pytest.importorskip("transformers", reason="compares with transformers")

SIZES = {"vocab_size": 257, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": None}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=200, **SIZES
    ),
    "llama": lambda: transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=200,
        **SIZES,
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, as transformers keeps it."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]())
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    path = tmp_path_factory.mktemp("hf") / request.param
    model.save_pretrained(path)
    return path


@pytest.fixture
def made(folder: Path) -> CausalPredictor:
    return open_causal(str(folder), "bytes", "cpu", "auto")


def tokens(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape))


@torch.no_grad()
def own(made: CausalPredictor, ids: torch.Tensor) -> torch.Tensor:
    """transformers' loss of the last token of each row."""
    labels = torch.full_like(ids, -100)
    labels[:, -1] = ids[:, -1]
    rows = zip(ids.split(1), labels.split(1), strict=True)
    return torch.stack([made.model(input_ids=row, labels=goal).loss for row, goal in rows])


@torch.no_grad()
def test_losses_are_their_own(made: CausalPredictor) -> None:
    ids = tokens(3, 90)
    nats, _ = made.losses(ids[:, :-1], ids[:, 1:], made.start(3))
    assert float(nats.mean()) == pytest.approx(
        float(made.model(input_ids=ids, labels=ids).loss), abs=1e-5
    )
    for end in (2, 40, 90):
        torch.testing.assert_close(nats[:, end - 2], own(made, ids[:, :end]), atol=1e-5, rtol=0)
    assert nats.std() > 0.5, "equal losses would prove nothing"


@torch.no_grad()
def test_a_large_vocabulary_is_summed_as_exactly_as_theirs() -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=1, vocab_size=50_000, bos_token_id=0, eos_token_id=0
    )
    made = CausalPredictor("wide", transformers.GPT2LMHeadModel(config), IdCodec(50_000, 0))
    made.model.lm_head.weight.mul_(50)
    ids = torch.randint(0, 50_000, (2, 40))
    nats, _ = made.losses(ids[:, :-1], ids[:, 1:], made.start(2))
    exact = made.model.double()(input_ids=ids).logits[:, :-1].log_softmax(-1)
    exact = -exact.gather(2, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(nats.double(), exact, atol=1e-5, rtol=0)


def test_a_context_is_a_window(made: CausalPredictor) -> None:
    text = Text((tokens(400).numpy(),), 1.0)
    targets = text.targets(150, RUN)
    found = losses(made, targets, 30)
    for offset in (0, 20, 63):
        end = targets.places[0][1] + offset + 1
        window = torch.from_numpy(text.documents[0][end - 31 : end])[None]
        assert found[0, offset] == pytest.approx(float(own(made, window)[0]), abs=1e-5)


@torch.no_grad()
def test_the_cache_goes_on_and_is_never_written_to(made: CausalPredictor) -> None:
    ids = tokens(2, 151)
    whole, _ = made.losses(ids[:, :-1], ids[:, 1:], made.start(2))
    first, state = made.losses(ids[:, :70], ids[:, 1:71], made.start(2))
    for _ in range(2):
        rest, _ = made.losses(ids[:, 70:-1], ids[:, 71:], state)
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-5, rtol=0)
    made.segment = 64
    pieces = read(made, ids.numpy())
    torch.testing.assert_close(torch.from_numpy(pieces), whole.double(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_it_looks_where_its_attention_is(made: CausalPredictor) -> None:
    ids = tokens(1, 97)
    eager = made.model
    usual = eager.config._attn_implementation
    eager.set_attn_implementation("eager")
    attentions = eager(input_ids=ids[:, :-1], output_attentions=True).attentions
    eager.set_attn_implementation(usual)
    seen: list[Seen] = []
    state = made.looks(ids[:, :60], made.start(1), seen.append)
    made.looks(ids[:, 60:-1], state, seen.append)
    assert [one.layer for one in seen] == [0, 1, 0, 1]
    for layer, theirs in enumerate(attentions):
        torch.testing.assert_close(seen[layer].weights, theirs[:, :, :60, :60], atol=1e-5, rtol=0)
        torch.testing.assert_close(seen[2 + layer].weights, theirs[:, :, 60:], atol=1e-5, rtol=0)
    assert seen[2].q_pos.tolist() == [list(range(60, 96))]
    assert eager.config._attn_implementation == usual
    found = looking(made, ids.numpy())
    assert found is not None
    np.testing.assert_allclose(found.mass.sum(2), 1, atol=1e-5)
    assert found.memory.max() == 0, "a window is no memory"


def test_it_is_differentiable_and_carries_nothing(made: CausalPredictor) -> None:
    norms = gradients(made, tokens(2, 31))
    assert norms.shape == (2, 30)
    assert (norms > 0).all()
    assert worth(made, tokens(2, 191).numpy(), np.arange(2), 1.0) == []


def test_its_price(made: CausalPredictor) -> None:
    price = made.price(100)
    assert price.parameters == sum(p.numel() for p in made.model.parameters())
    keys = {"GPT2LMHeadModel": 16, "LlamaForCausalLM": 8}[type(made.model).__name__]
    assert price.state == 2 * 2 * keys * 100 * 4
    assert made.price(10**6).after == made.longest == 200
    more = made.price(150).flops - price.flops
    assert more == pytest.approx(2 * 2 * 2 * 16 * 50)


def test_a_tokenizer_of_theirs_reads_text(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = {"<s>": 0, "the": 1, "cat": 2, "sat": 3, "?": 4}
    tokenizer = Tokenizer(WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "whole")
    fast.save_pretrained(tmp_path / "whole")
    made = open_causal(str(tmp_path / "whole"), None, "cpu", "auto")
    (tmp_path / "a.txt").write_text("the cat sat the dog")
    corpus = read_data(str(tmp_path / "a.txt"), made.codec)
    assert corpus.tokens.tolist() == [0, 1, 2, 3, 1, 4]
    assert made.unit == "token"
    (tmp_path / "b.txt").write_bytes(b"the \xff")
    with pytest.raises(DataError, match="byte 4 is no UTF-8"):
        read_data(str(tmp_path / "b.txt"), made.codec)
    numbers = open_causal(str(folder), None, "cpu", "auto")
    (tmp_path / "c.txt").write_text("7 8 9")
    assert read_data(str(tmp_path / "c.txt"), numbers.codec).tokens.tolist() == [256, 7, 8, 9]


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({"a": 0, "zebra": 300}, unk_token="a"))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    transformers.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "m")
    fast.save_pretrained(tmp_path / "m")
    made = open_causal(str(tmp_path / "m"), None, "cpu", "auto")
    (tmp_path / "a.txt").write_text("zebra")
    with pytest.raises(DataError, match="token 300 and the model knows 257: they do not belong"):
        read_data(str(tmp_path / "a.txt"), made.codec)


def test_what_is_no_model_is_said(tmp_path: Path, folder: Path, monkeypatch: Any) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder or file"):
        open_causal(str(tmp_path / "nowhere"), None, "cpu", "auto")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"a name of the Hub is OWNER/NAME, such as open"):
        open_causal("gpt2", None, "cpu", "auto")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"hf:.*empty cannot be read"):
        open_causal(str(tmp_path / "empty"), None, "cpu", "auto")
    with pytest.raises(ConfigError, match="has no tokenizer; give numbers"):
        open_causal(str(folder), "text", "cpu", "auto")
