"""Which document goes where: by its name alone, and never so that training has nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longspan.data.split import assign, ranges

fractions = st.tuples(st.floats(0, 0.5), st.floats(0, 0.49))


def test_fractions_are_met() -> None:
    split = assign([f"folder/{i}.txt" for i in range(20_000)], 0.1, 0.05)
    assert abs(split.count("valid") / 20_000 - 0.1) < 0.01
    assert abs(split.count("test") / 20_000 - 0.05) < 0.01


def test_a_document_stays_where_it_is_when_others_come() -> None:
    names = [f"{i}.txt" for i in range(300)]
    before = dict(zip(names, assign(names, 0.1, 0.1), strict=True))
    more = [f"{i}.md" for i in range(100)] + names
    after = dict(zip(more, assign(more, 0.1, 0.1), strict=True))
    assert all(after[name] == before[name] for name in names)


def test_the_hash_is_pinned() -> None:
    # another hash would silently mix training data of existing runs into their validation
    names = [f"{i}.txt" for i in range(40)]
    split = assign(names, 0.1, 0.1)
    assert [n for n, s in zip(names, split, strict=True) if s == "valid"] == [
        "1.txt",
        "18.txt",
        "20.txt",
        "27.txt",
        "39.txt",
    ]
    assert [n for n, s in zip(names, split, strict=True) if s == "test"] == [
        "2.txt",
        "24.txt",
        "28.txt",
        "34.txt",
    ]


@given(
    names=st.lists(st.text(max_size=5), min_size=1, max_size=9, unique=True), fractions=fractions
)
def test_no_wanted_split_is_empty(names: list[str], fractions: tuple[float, float]) -> None:
    valid, test = fractions
    split = assign(names, valid, test)
    assert "train" in split
    if len(names) >= 3:
        assert ("valid" in split) == (valid > 0)
        assert ("test" in split) == (test > 0)
    shuffled = assign(names[::-1], valid, test)[::-1]
    assert shuffled == split  # the order of the documents does not matter


def test_names_that_are_no_text_are_hashed_too() -> None:
    assert len(assign(["a\udcff", "b"], 0.5, 0.4)) == 2


@given(
    content=st.one_of(st.binary(max_size=400), st.text("aé🙂\n", max_size=400).map(str.encode)),
    fractions=fractions,
)
def test_an_only_document_is_cut_in_order(content: bytes, fractions: tuple[float, float]) -> None:
    valid, test = fractions
    parts = ranges(content, valid, test)
    assert list(parts) == ["train", "valid", "test"]
    assert parts["train"][0] == 0
    assert parts["train"][1] == parts["valid"][0]
    assert parts["valid"][1] == parts["test"][0]
    assert parts["test"][1] == len(content)
    sizes = {split: stop - start for split, (start, stop) in parts.items()}
    if content:
        assert sizes["train"] > 0
    if valid == 0:
        assert sizes["valid"] == 0
    if test == 0:
        assert sizes["test"] == 0


@given(content=st.text("aé🙂\n", min_size=50, max_size=400).map(str.encode))
def test_a_cut_never_falls_into_a_character(content: bytes) -> None:
    for start, stop in ranges(content, 0.2, 0.1).values():
        content[start:stop].decode()


def test_a_cut_falls_after_a_newline_where_one_is_near() -> None:
    content = b"a line of text\n" * 1000
    parts = ranges(content, 0.1, 0.05)
    for start, stop in parts.values():
        assert content[start:stop].startswith(b"a line")
    assert abs(parts["valid"][0] / len(content) - 0.85) < 0.01
    assert abs(parts["test"][0] / len(content) - 0.95) < 0.01
