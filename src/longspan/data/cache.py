"""Folders that are there whole or not at all, whenever a process may die.

A folder is filled under another name beside its place, flushed to the disk and then renamed, which
the file system does in one step. A lock keeps a second process waiting instead of doing the same
work; the system frees it when its holder dies. Where there are no locks (some network disks,
Windows) both build, and the first to finish wins.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longspan.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

Check = Callable[[Path], str | None]
"""What is wrong with a folder that is there; None if nothing is."""


def cache_root(chosen: str) -> Path:
    """Where tokenised data is kept: `chosen`, else `$LONGSPAN_CACHE`, else in the home folder."""
    return Path(chosen or os.environ.get("LONGSPAN_CACHE") or "~/.cache/longspan").expanduser()


def ensure(folder: Path, fill: Callable[[Path], None], check: Check) -> None:
    """Makes `folder` be there, whole.

    Args:
        folder: the place.
        fill: writes the files into the (empty) folder that it is given.
        check: says what is wrong with `folder` when it is there; a damaged one is replaced.

    Raises:
        DataError: it cannot be written.
    """
    if _good(folder, check):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_name(f".{folder.name}.lock")) as alone:
            if _good(folder, check):  # built by another process while this one waited
                return
            if alone:  # what a killed process left
                for part in folder.parent.glob(f".{folder.name}.part-*"):
                    shutil.rmtree(part, ignore_errors=True)
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))
            try:
                fill(part)
                for file in part.iterdir():
                    _flush(file)
                _flush(part)
                _move(part, folder, check)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder.parent}: the tokenised data cannot be written ({error.strerror}); "
            "set data.cache or LONGSPAN_CACHE to a folder with room that may be written"
        ) from error


def mapped(file: Path, dtype: str) -> NDArray[Any]:
    """The numbers in a file, read-only and read when they are looked at."""
    if file.stat().st_size == 0:  # which cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(file, dtype, mode="r")


def _good(folder: Path, check: Check) -> bool:
    return folder.is_dir() and check(folder) is None


def _move(part: Path, folder: Path, check: Check) -> None:
    if folder.is_dir() and (problem := check(folder)) is not None:
        log.warning("%s was damaged (%s) and has been built anew", folder, problem)
        shutil.rmtree(folder)
    try:
        os.rename(part, folder)
    except OSError:
        if check(folder) is not None:  # else another process was first: it is the same data
            raise
    _flush(folder.parent)


@contextmanager
def _lock(path: Path) -> Generator[bool, None, None]:
    """Holds the lock `path`; gives False where there are no locks."""
    while True:
        with open(path, "wb") as file:
            try:
                if fcntl is None:
                    raise OSError
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                yield False
                return
            if not _same(file.fileno(), path):  # its last holder has removed it
                continue
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _flush(path: Path) -> None:
    """Returns when `path` is on the disk."""
    try:
        file = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(file)
    finally:
        os.close(file)
