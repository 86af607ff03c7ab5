"""What the page says in words is what the numbers say, welcome or not."""

from __future__ import annotations

import pytest

from longspan.show.numbers import apart, change, count, duration, rate, size
from longspan.show.sentences import read_memory, read_training, summary


def points(*pairs: tuple[int, float]) -> list[dict[str, float]]:
    return [{"memory": memory, "bits_per_byte": bits} for memory, bits in pairs]


def steps(*values: float) -> list[dict[str, float]]:
    return [{"step": 100 * i, "bits_per_byte": bits} for i, bits in enumerate(values, 1)]


def test_memory_that_helps():
    said = read_memory(points((0, 2.1404), (256, 2.01)), 256)
    assert said.startswith(
        "with 256 tokens of memory the model needs 2.01 bits for a byte, 6.1% less than without."
    )


def test_memory_that_hurts_is_said_to_hurt(results):
    said = read_memory(points((0, 2.0), (256, 2.1)), 256)
    assert "5.0% more than without: here memory does not help" in said
    results["rows"][1]["bits_per_byte"] = 2.25
    assert "here memory does not help, it costs 5.0% more" in summary(results)
    assert "saves" not in summary(results)


def test_memory_that_makes_no_difference_is_not_praised(results):
    said = read_memory(points((0, 2.0), (256, 1.9999)), 256)
    assert "as many as without: here memory does not help" in said
    results["rows"][1]["bits_per_byte"] = 2.1433
    assert "here memory makes no difference" in summary(results)


def test_longer_memory_than_trained_with():
    better = read_memory(points((0, 2.2), (256, 2.0), (512, 1.9)), 256)
    worse = read_memory(points((0, 2.2), (256, 2.0), (512, 2.3)), 256)
    assert "still helps: 1.90 bits with 512 tokens" in better
    assert "does not help: 2.30 bits with 512 tokens" in worse


def test_without_a_measurement_at_zero_nothing_is_compared():
    said = read_memory(points((128, 2.1), (256, 2.0)), 256)
    assert "less than" not in said


def test_the_summary_holds_the_numbers(results):
    said = summary(results)
    for words in (
        "6.31 million parameters",
        "With 256 tokens of memory it needs 2.01 bits",
        "2.14 without: memory saves 6.1%",
        "A sliding window of 256 tokens instead of memory needs 2.03 bits and takes 106 times as",
        "2.19 (xz -9, per file) and 4.01 (xz -9, one archive)",
    ):
        assert words in said


def test_what_is_carried_without_a_length(results):
    """A recurrent state: there is nothing to vary, but something to compare with."""
    results["run"]["memory"] = None
    results["rows"][1] |= {"name": "a state of its own", "kind": "state", "memory": None}
    said = summary(results)
    assert "With what it carries from segment to segment it needs 2.01 bits" in said
    assert "2.14 without: memory saves 6.1%" in said
    assert "takes 106 times as" in said
    del results["rows"][0]
    assert "segment to segment it needs 2.01 bits for each byte of text new to it." in summary(
        results
    )


def test_training_that_still_improves_levels_off_or_turns():
    assert "it was still improving" in read_training([], steps(3.0, 2.5, 2.2))
    assert "level since (2.21 at the end)" in read_training([], steps(3.0, 2.2, 2.205))
    turned = read_training([], steps(3.0, 2.2, 2.4))
    assert "2.20, at step 200, and ends at 2.40: the later steps did not help" in turned


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (change(-0.0612), "−6.1%"),
        (change(0.02), "+2.0%"),
        (change(-0.0001), "0.0%"),
        (change(None), "–"),
        (count(4096), "4,096"),
        (count(6_312_448), "6.31 million"),
        (size(1), "1 byte"),
        (size(400_000), "400 kB"),
        (size(1_934_000_000), "1.93 GB"),
        (duration(0.42), "0.42 s"),
        (duration(2463.8), "41 min"),
        (duration(7500), "2 h 05 min"),
        (rate(8312.4), "8,312"),
        (rate(8.31), "8.3"),
        (rate(float("nan")), "–"),
    ],
)
def test_numbers_as_people_read_them(written, expected):
    assert written == expected


def test_different_numbers_never_look_alike():
    assert apart([2.01, 2.14]) == ["2.01", "2.14"]
    assert apart([2.011, 2.012]) == ["2.011", "2.012"]
    assert apart([2.01, 2.01]) == ["2.01", "2.01"]
