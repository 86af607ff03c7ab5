"""`longspan stream`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from select import select
from types import FrameType

from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.errors import DataError
from longspan.measure.stream import CHUNK, Stream, Surprise


def stream(
    run: str,
    source: str = "-",
    /,
    *,
    alert: float | None = None,
    state: Path | None = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Write the surprisal of every token of an unbounded input, as JSON lines.

    Parameters
    ----------
    run
        A run's folder.
    source
        A file, or - for standard input, scored as it comes.
    alert
        Write only tokens of more than so many bits.
    state
        Begin with the memory in this file, if it exists, and save it there at the end.
    """
    loaded = open_run(run, checkpoint, device, dtype, threads)
    flow = Stream.load(loaded, state) if state is not None and state.exists() else Stream(loaded)
    try:
        handle = sys.stdin.fileno() if source == "-" else os.open(source, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from error
    with _Ended() as ended:
        try:
            while data := ended.read(handle):
                _write(flow.feed(data), alert)
            if state is None:
                _write(flow.feed(b"", final=True), alert)
        except IsADirectoryError as error:
            raise DataError(f"{source} is a folder; name a file") from error
        if state is not None:
            flow.save(state)
    if ended.number is not None:
        sys.exit(128 + ended.number)


def _write(steps: Iterable[Surprise], alert: float | None) -> None:
    for step in steps:
        if alert is None or step.bits > alert:
            text = step.bytes.decode("utf-8", errors="backslashreplace")
            line = {
                "position": step.position,
                "token": step.token,
                "text": text,
                "bits": round(step.bits, 6),
            }
            # a line at a time: where Python does not buffer, a signal may cut longer writes short
            sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class _Ended:
    """Ctrl-C and SIGTERM end the input, so that the memory is still saved.

    What has been read is always scored: a signal only ever ends the waiting for more.
    """

    def __enter__(self) -> _Ended:
        self.number: int | None = None
        self.awake, self.wake = os.pipe()
        os.set_blocking(self.wake, False)
        self.woken = signal.set_wakeup_fd(self.wake)
        asked = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self._note) for number in asked}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.woken)
        os.close(self.awake)
        os.close(self.wake)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number

    def read(self, handle: int) -> bytes:
        """The next bytes; none at the end."""
        select([handle, self.awake], [], [])
        return b"" if self.number is not None else os.read(handle, CHUNK)
