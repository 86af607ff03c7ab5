"""`longspan stream` as a member of a pipeline."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

import longspan
from longspan.measure.stream import Stream
from tests.tiny import (
    PATIENCE,
    Result,
    contents,
    environment,
    lines,
    refused,
    run,
    start,
    train_tiny,
)

STREAM = ("stream", "--threads", 1)
TEXT = "def main():\n    return 'ä€'\n".encode() * 9


def arrived(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    """The next `count` lines of a process that goes on; fails if they do not come."""
    assert process.stdout is not None
    deadline, text = time.monotonic() + PATIENCE, b""
    while text.count(b"\n") < count:
        left = deadline - time.monotonic()
        assert left > 0, f"only {text!r} came"
        if select.select([process.stdout], [], [], left)[0]:
            piece = os.read(process.stdout.fileno(), 1)
            assert piece, "it ended"
            text += piece
    return text.splitlines()


def test_a_line_is_a_token(cli: Callable[..., Result], trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    rows = lines(cli(*STREAM, trained, tmp_path / "text").out.encode())
    steps = list(longspan.stream(longspan.load(trained), TEXT))
    assert [row["position"] for row in rows] == list(range(len(TEXT)))
    assert bytes(row["token"] for row in rows) == TEXT
    assert [row["bits"] for row in rows] == [round(step.bits, 6) for step in steps]
    # a byte of a longer character is no text alone
    assert "".join(row["text"] for row in rows[:11]) == "def main():"
    assert rows[TEXT.index("ä".encode())]["text"] == r"\xc3"


def test_alert_keeps_what_surprises(
    cli: Callable[..., Result], trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    every = lines(cli(*STREAM, trained, tmp_path / "text").out.encode())
    bits = sorted(row["bits"] for row in every)
    limit = (bits[100] + bits[120]) / 2
    some = cli(*STREAM, trained, tmp_path / "text", "--alert", limit).out.encode()
    assert lines(some) == [row for row in every if row["bits"] > limit]
    assert 0 < len(lines(some)) < len(every)
    assert cli(*STREAM, trained, tmp_path / "text", "--alert", 1000).out == ""


@pytest.mark.parametrize("kind", ["trained", "trained_bpe"])
def test_a_state_goes_on_where_the_last_call_stopped(
    cli: Callable[..., Result], request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    folder = request.getfixturevalue(kind)
    draw = random.Random(0)
    edges = [0, *sorted(draw.sample(range(len(TEXT)), 4)), len(TEXT)]
    rows = ""
    for low, high in pairwise(edges):
        (tmp_path / "piece").write_bytes(TEXT[low:high])
        rows += cli(*STREAM, folder, tmp_path / "piece", "--state", tmp_path / "state").out
    (tmp_path / "text").write_bytes(TEXT)
    at_once = (*STREAM, folder, tmp_path / "text", "--state", tmp_path / "once")
    assert rows == cli(*at_once).out
    assert (tmp_path / "state").read_bytes() == (tmp_path / "once").read_bytes()
    # without a state the end of the input ends the text
    whole = cli(*STREAM, folder, tmp_path / "text").out
    assert whole.startswith(rows)
    assert "".join(json.loads(row)["text"] for row in whole.splitlines()[:11])[:4] == "def "


def test_a_line_piped_in_is_scored_while_the_pipe_stays_open(trained: Path, tmp_path: Path) -> None:
    process = start(*STREAM, trained, "--state", tmp_path / "state", stdin=subprocess.PIPE)
    assert process.stdin is not None
    for line in (b"import os\n", b"import sys\n"):
        process.stdin.write(line)
        process.stdin.flush()
        rows = lines(arrived(process, len(line)))
        assert bytes(row["token"] for row in rows) == line
    # Ctrl-C ends it as the end of the pipe would have
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, b"", b"")
    flow = Stream.load(longspan.load(trained), tmp_path / "state")
    assert flow.position == len(b"import os\nimport sys\n")
    steps = list(longspan.stream(longspan.load(trained), b"import os\nimport sys\nimport re\n"))
    assert list(flow.feed(b"import re\n")) == steps[-10:]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_sigterm_while_it_computes_loses_nothing_that_was_read(
    trained: Path, tmp_path: Path, unbuffered: str
) -> None:
    """What came out of the pipe is in the state, what did not is still to be read."""
    read, write = os.pipe()
    env = environment(PYTHONUNBUFFERED=unbuffered)
    process = start(*STREAM, trained, "--state", tmp_path / "state", stdin=read, env=env)
    os.close(read)
    os.write(write, TEXT * 20)
    rows = arrived(process, 300)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    os.close(write)
    assert (process.returncode, err) == (143, b"")
    printed = lines([*rows, *out.splitlines()])
    assert [row["position"] for row in printed] == list(range(len(printed)))
    assert Stream.load(longspan.load(trained), tmp_path / "state").position == len(printed)


def test_a_closed_pipe_ends_it_cleanly(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT * 400)
    process = start(*STREAM, trained, tmp_path / "text")
    head = subprocess.run(
        ["head", "-1"], stdin=process.stdout, capture_output=True, timeout=PATIENCE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == b""
    process.stderr.close()
    assert [row["position"] for row in lines(head.stdout)] == [0]


def test_nothing_in_gives_nothing_out(trained: Path, tmp_path: Path) -> None:
    done = run(*STREAM, trained, "--state", tmp_path / "state", input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert Stream.load(longspan.load(trained), tmp_path / "state").position == 0


# -- bad input ------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_refused(
    cli: Callable[..., Result], trained: Path, tmp_path: Path
) -> None:
    said = refused(cli(*STREAM, trained, tmp_path / "nothing"))
    assert f"{tmp_path / 'nothing'} cannot be read: No such file" in said
    assert "is a folder; name a file" in refused(cli(*STREAM, trained, tmp_path))
    assert "does not exist" in refused(cli(*STREAM, tmp_path / "nothing"))
    assert "is no run" in refused(cli(*STREAM, tmp_path))


def test_bad_states_are_refused_and_left_as_they_are(
    cli: Callable[..., Result], trained: Path, trained_bpe: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    state = tmp_path / "state"
    assert cli(*STREAM, trained, tmp_path / "text", "--state", state).status == 0
    before = contents(tmp_path)
    again = (*STREAM, trained, tmp_path / "text", "--state", state)
    assert "another run" in refused(cli(*STREAM, trained_bpe, *again[4:]))
    assert "--dtype" in refused(cli(*again, "--dtype", "bfloat16"))
    assert contents(tmp_path) == before
    state.write_bytes(state.read_bytes()[:-100])
    before = contents(tmp_path)
    assert "damaged" in refused(cli(*again))
    assert contents(tmp_path) == before
    missing = tmp_path / "no such folder" / "state"
    assert "could not be written" in refused(cli(*again[:-1], missing))


# -- an unbounded stream --------------------------------------------------------------------------


def resident(process: subprocess.Popen[bytes]) -> int:
    """Bytes of memory that a process holds."""
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.parametrize("segment", [32, 128])
def test_a_million_bytes_in_constant_memory(tmp_path: Path, corpus: Path, segment: int) -> None:
    pattern = {"name": "segments", "length": segment, "memory": segment}
    changes = {"train.steps": 5, "evaluate.every": 0, "model.pattern": pattern}
    changes["model.memory"] = {"name": "recent", "tokens": segment}
    folder = train_tiny(tmp_path / "run", corpus, **changes)
    text = b"".join(path.read_bytes() for path in sorted(corpus.iterdir()))
    (tmp_path / "few").write_bytes(text[:5000])
    (tmp_path / "many").write_bytes((text * (10**6 // len(text) + 1))[: 10**6])
    process = start(*STREAM, folder, tmp_path / "many", "--state", tmp_path / "state of many")
    assert process.stdout is not None
    assert process.stderr is not None
    sizes: dict[int, int] = {}
    count = 0
    for _ in process.stdout:
        count += 1
        if count % 100_000 == 0:
            sizes[count] = resident(process)
    assert process.wait(PATIENCE) == 0
    process.stdout.close()
    process.stderr.close()
    assert count == 10**6
    assert max(sizes.values()) - sizes[100_000] < 4e6, sizes
    assert run(*STREAM, folder, tmp_path / "few", "--state", tmp_path / "state of few").stdout
    few, many = (longspan.State.load(tmp_path / f"state of {name}") for name in ("few", "many"))
    assert few.nbytes == many.nbytes
