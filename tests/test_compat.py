"""Each rule: when it speaks, what it says, and that following its repair silences it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import longspan
from longspan import (
    T5,
    XL,
    Additive,
    Attention,
    Auto,
    Cache,
    Causal,
    Compressive,
    Concat,
    Decoder,
    DecoderConfig,
    EncoderConfig,
    Fixed,
    Full,
    General,
    IncompatibleConfig,
    Infini,
    Learned,
    Longformer,
    Nearest,
    NoMemory,
    NoPosition,
    Recent,
    Rotary,
    Segments,
    Shaw,
    Sinusoidal,
    Strided,
    Tokens,
    Window,
)
from longspan.compat import refuse, score_conflicts, slot_conflicts, written
from longspan.errors import ConfigError, Conflict
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.mixers.softmax import Softmax
from longspan.mixing import Mixer
from longspan.models.stack import Different, StackConfig


def rules(*slots, **options) -> list[str]:
    return [conflict.rule for conflict in slot_conflicts(*slots, **options)]


def test_slots_that_fit_are_let_through() -> None:
    assert rules(XL(), Segments(8, 16), Recent(16)) == []
    assert rules(XL(), Segments(8, 16), Recent(99)) == []
    assert rules(NoPosition(), Causal(), Cache()) == []
    assert rules(NoPosition(), Full(), NoMemory()) == []
    refuse([])


def test_p1_a_position_of_the_input_is_no_layers_matter() -> None:
    (conflict,) = slot_conflicts(Sinusoidal(), Causal(), Cache())
    assert str(conflict) == (
        "[P1] position='sinusoidal' is added to the model's input, not in a layer. "
        "Give it to a Decoder or Encoder, or add position.entry(dim)(…) to x and use NoPosition()."
    )


def test_k1_what_adds_to_the_values_needs_the_weights() -> None:
    (conflict,) = slot_conflicts(Shaw(), Causal(), Cache(), SDPA())
    assert str(conflict) == (
        "[K1] position='shaw' adds to the values by the weights, which kernel='sdpa' never forms. "
        "Use kernel 'auto', 'blocked' or 'reference'."
    )
    assert rules(Shaw(), Causal(), Cache(), Auto()) == rules(XL(), Causal(), Cache(), SDPA()) == []


def test_c1_a_rotation_needs_a_product() -> None:
    (conflict,) = score_conflicts(Additive(), Rotary())
    assert str(conflict) == (
        "[C1] position='rotary' is told by the product of queries and keys, which "
        "score='additive' never forms. Use score 'scaled', 'dot' or 'general', or another "
        "position, such as 't5'."
    )
    for score, position in ((General(), Rotary()), (Additive(), T5()), (Concat(), XL())):
        assert score_conflicts(score, position) == []


def test_k2_what_is_merged_needs_the_sums() -> None:
    (conflict,) = slot_conflicts(XL(), Strided(4), Cache(), SDPA())
    assert str(conflict) == (
        "[K2] pattern='strided' merges answers over two sets of keys by their sums, which "
        "kernel='sdpa' does not tell. Use kernel 'auto', 'blocked' or 'reference'."
    )
    for kernel in (Auto(), Blocked(), Reference()):
        assert rules(XL(), Strided(4), Cache(), kernel) == []
    assert rules(XL(), Fixed(4), Cache(), SDPA()) == []


def test_m1_what_looks_both_ways_has_no_past() -> None:
    assert rules(XL(), Full(), Recent(4)) == rules(XL(), Full(), Cache()) == ["M1"]
    assert rules(XL(), Full(), Recent(0)) == []
    assert rules(NoPosition(), Full(), Infini()) == ["M1"]


def test_m1_holds_for_what_is_stored_beside_the_softmax_too() -> None:
    assert rules(XL(), Full(), Nearest(9)) == ["M1"]


@pytest.mark.parametrize(
    ("pattern", "memory", "reason", "repaired"),
    [
        (
            Window(5),
            Recent(3),
            "memory='recent' keeps 3 tokens; pattern='window' reaches back 4.",
            [(Window(5), Recent(4)), (Window(4), Recent(3))],
        ),
        (
            Segments(8, 6),
            NoMemory(),
            "memory='none' keeps 0 tokens; pattern='segments' reaches back 6.",
            [(Segments(8, 6), Recent(6)), (Segments(8, 0), NoMemory())],
        ),
        (
            Causal(),
            Recent(3),
            "memory='recent' keeps 3 tokens; pattern='causal' reaches without limit.",
            [(Causal(), Cache()), (Window(4), Recent(3))],
        ),
        (
            Window(5),
            Nearest(9),
            "memory='nearest' keeps 0 tokens; pattern='window' reaches back 4.",
            [(Window(5), Nearest(9, local=4)), (Window(1), Nearest(9))],
        ),
    ],
)
def test_m2_a_memory_covers_the_reach_of_its_pattern(pattern, memory, reason, repaired) -> None:
    (conflict,) = slot_conflicts(XL(), pattern, memory)
    assert conflict.rule == "M2"
    assert conflict.reason.startswith(reason)
    for slots in repaired:
        assert rules(XL(), *slots) == []
    assert "exact=False" in conflict.repair
    assert written(repaired[0][1]).replace("Cache()", "memory 'cache'") in conflict.repair
    assert rules(XL(), pattern, memory, exact=False) == []


def test_d1_a_decoder_must_not_see_the_answer() -> None:
    config = DecoderConfig(
        width=8,
        layers=1,
        heads=2,
        feed_forward=8,
        position=Sinusoidal(),
        pattern=Full(),
        memory=NoMemory(),
    )
    # a decoder adds the position to its input: P1 is silent
    assert [conflict.rule for conflict in config.conflicts()] == ["D1"]


def test_e1_an_encoder_reads_both_ways() -> None:
    sizes = {"width": 8, "layers": 2, "heads": 2, "feed_forward": 8}
    (conflict,) = EncoderConfig(**sizes, pattern=Causal()).conflicts()
    assert str(conflict) == (
        "[E1] pattern='causal' hides what comes after a token; an encoder reads both ways. "
        "Use pattern 'full' or one with causal=false, or a Decoder."
    )
    one = EncoderConfig(**sizes, stack=(Different(), Different(pattern=Window(2))))
    assert [c.rule for c in one.conflicts()] == ["E1"]
    assert EncoderConfig(**sizes, position=XL()).conflicts() == []


@dataclass(frozen=True)
class Own(Mixer):
    """A mixer with a state of its own that runs forward only."""

    bidirectional: ClassVar[bool] = False


def stack(*layers: Different, **changes: Any) -> list[str]:
    sizes = {"width": 8, "layers": max(1, len(layers)), "heads": 2, "feed_forward": 8}
    Own.name = "own"
    return [c.rule for c in StackConfig(**sizes, stack=layers, **changes).conflicts()]


def test_s1_a_layer_with_a_state_of_its_own_takes_no_slots() -> None:
    assert stack(Different(mixer=Own(), memory=Cache()), Different(memory=Cache())) == ["S1"]
    assert stack(Different(mixer=Own()), Different(memory=Cache())) == []


def test_s2_a_mixer_runs_in_the_direction_that_it_has() -> None:
    assert stack(mixer=Own(), pattern=Full()) == ["S2"]
    assert stack(mixer=Own(), pattern=Causal()) == []
    assert stack(mixer=Softmax(), pattern=Full()) == []


def test_s3_a_slot_that_no_layer_takes_is_not_left_out_silently() -> None:
    assert stack(mixer=Own(), memory=Recent(3), position=XL()) == ["S3", "S3"]
    for pattern in (Window(3), Strided(3), Segments(4, 0)):
        assert stack(mixer=Own(), pattern=pattern) == ["S3"]
    assert stack(mixer=Own(), position=Sinusoidal()) == []


def test_s3_nor_is_one_that_every_layer_has_of_its_own() -> None:
    own = Different(position=Rotary(), pattern=Window(4), memory=Recent(3))
    assert stack(own, position=XL(), pattern=Window(9), memory=Recent(8)) == ["S3"] * 3
    assert stack(own, Different(), position=XL(), pattern=Window(9), memory=Recent(8)) == []
    assert stack(own) == []


def test_s3_nor_dropout_of_weights_that_no_layer_has() -> None:
    assert stack(mixer=Own(), attention_dropout=0.1) == ["S3"]
    both = (Different(mixer=Own()), Different())
    assert stack(*both, memory=Cache(), attention_dropout=0.1) == []


def test_s3_nor_biases_that_no_layer_has() -> None:
    assert stack(mixer=Own(), bias=True) == ["S3"]
    assert stack(Different(mixer=Own()), Different(), memory=Cache(), bias=True) == []


def test_s4_a_stack_has_one_length_of_segments() -> None:
    layers = [Different(pattern=Segments(length, 0)) for length in (4, 8)]
    assert stack(*layers) == ["S4"]
    assert stack(layers[0], Different(pattern=Window(3), memory=Recent(2))) == []


def test_m3_a_memory_that_folds_needs_segments() -> None:
    @dataclass(frozen=True)
    class Folds(Recent):
        folds: ClassVar[bool] = True

    memory = Folds(3)
    found = slot_conflicts(NoPosition(), Window(4), memory)
    assert [conflict.rule for conflict in found] == ["M3"]
    assert not slot_conflicts(NoPosition(), Segments(4, 3), memory)


def test_m4_a_segment_holds_whole_groups_of_a_memory_that_compresses() -> None:
    (conflict,) = slot_conflicts(XL(), Segments(10, 16), Compressive(8, 2, 4))
    assert str(conflict) == (
        "[M4] memory='compressive' takes 4 tokens at a time, which do not divide the pattern's "
        "segment of 10. Use a segment that is a multiple of 4, or another memory.rate."
    )
    assert rules(XL(), Segments(12, 16), Compressive(8, 2, 4)) == []
    assert rules(XL(), Segments(10, 12), Compressive(8, 2, 2)) == []
    assert rules(XL(), Window(5), Compressive(8, 2, 4)) == ["M3"]


def test_m5_what_wraps_a_model_is_no_layers_matter() -> None:
    assert rules(NoPosition(), Segments(4, 0), Tokens(2)) == ["M5"]
    assert wrapped() == []
    assert wrapped(pattern=Window(3)) == ["M3"]
    assert wrapped(pattern=Segments(4, 3)) == ["M2"]
    assert stack(pattern=Segments(4, 0), memory=Tokens(2)) == ["M5"]


def test_m6_marked_tokens_stay_in_sight() -> None:
    assert rules(NoPosition(), Longformer(4), Recent(9), exact=False) == ["M6"]
    assert rules(NoPosition(), Longformer(4), Cache()) == []
    assert rules(NoPosition(), Longformer(4, causal=False), NoMemory()) == []


def wrapped(*layers: Different, **changes: Any) -> list[str]:
    sizes = {"width": 8, "layers": max(1, len(layers)), "heads": 2, "feed_forward": 8}
    slots = {"pattern": Segments(4, 0), "memory": Tokens(2)} | changes
    return [c.rule for c in DecoderConfig(**sizes, **slots, stack=layers).conflicts()]


def test_s5_inside_of_it_nothing_else_goes_on() -> None:
    assert wrapped(Different(), Different(pattern=Segments(4, 0))) == []
    assert wrapped(Different(pattern=Segments(4, 3), memory=Recent(3)), Different()) == ["S5"]
    assert wrapped(Different(memory=Infini()), Different()) == ["S5"]


def test_p2_it_needs_places_as_well() -> None:
    assert wrapped(position=Learned(7)) == ["P2"]
    assert wrapped(position=Learned(8)) == []
    # a layer's own segment is what it sees
    assert wrapped(Different(pattern=Segments(4, 0)), Different(), position=Learned(7)) == ["P2"]


def test_p3_what_turns_pairs_needs_an_even_number_of_features() -> None:
    assert stack(memory=Cache(), position=Rotary(), head_dim=3) == ["P3"]
    assert stack(memory=Cache(), position=XL(), head_dim=3) == []
    with pytest.raises(
        IncompatibleConfig, match=r"\[P3\] .* head_dim=3 is odd. Set model.head_dim"
    ):
        Attention(6, 2, position=Rotary())


def test_all_conflicts_are_said_at_once_before_any_tensor_is_made() -> None:
    config = DecoderConfig(
        width=2**20,
        layers=12,
        heads=2**19,
        feed_forward=2**20,
        position=XL(),
        pattern=Full(),
        memory=Recent(3),
    )
    with pytest.raises(IncompatibleConfig) as caught:
        Decoder(config, 2**40)
    lines = str(caught.value).splitlines()
    assert lines[0] == "layers 0-11: 2 problems"
    assert [line.strip()[:4] for line in lines[1:]] == ["[M1]", "[D1]"]
    assert [conflict.rule for conflict in caught.value.conflicts] == ["M1", "D1"]


def test_it_is_a_config_error_and_names_where() -> None:
    with pytest.raises(ConfigError, match=r"^recipe\.yaml: \[X9\] No\. Yes\.$"):
        refuse([Conflict("X9", "No.", "Yes.")], "recipe.yaml")


def test_every_rule_is_tested_here() -> None:
    """A new rule needs a test. Those of recipes (T…), F1 and H… have theirs beside them."""
    files = Path(longspan.__file__).parent.rglob("*.py")
    rules = {rule for file in files for rule in re.findall(r'"([A-SU-Z]\d)",', file.read_text())}
    letters = {"C": 1, "D": 1, "E": 1, "F": 1, "H": 2, "K": 2, "M": 6, "P": 3, "S": 5}
    assert rules == {f"{k}{n}" for k, most in letters.items() for n in range(1, most + 1)}


def test_every_rule_is_in_the_documentation() -> None:
    source = Path(longspan.__file__).parent
    architecture = source.parents[1] / "docs" / "architecture.md"
    if not architecture.is_file():
        pytest.skip("the documentation is not beside the package")
    rules = {
        r for file in source.rglob("*.py") for r in re.findall(r'"([A-Z]\d+)",\n', file.read_text())
    }
    assert set(re.findall(r"^\| ([A-Z]\d+) \|", architecture.read_text(), re.M)) == rules
